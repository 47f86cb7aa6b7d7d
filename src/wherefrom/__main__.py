"""`python -m wherefrom` is `wherefrom`."""

import sys

from wherefrom.cli import main

sys.exit(main())
