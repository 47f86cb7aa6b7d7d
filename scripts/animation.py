"""Draw docs/images/unscrambling.webp from a shuffled run: python scripts/animation.py runs/study/shuffled-heads4-seed0.

Left, one held-out image: each patch moves to where the path of the position embedding puts it. Right, the layout of the
position embedding itself: dots are patches, coloured by their true place, joined to their true neighbours. Record a run
with `--record.probe-every 5` for smooth motion.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import wherefrom as wf
from wherefrom.figures.places import place_colours
from wherefrom.figures.unscramble import clearest

TARGET = Path(__file__).resolve().parents[1] / "docs" / "images" / "unscrambling.webp"
SIDE, MARGIN, HEAD = 320, 20, 44
IN_BETWEEN = 5
"""Frames from one recorded step to the next."""


def main(path: str) -> None:
    run = wf.open_run(path)
    grid, true = run.grid, run.array("patch_order", 0)
    images = run.array("example_images", 0)
    image = images[clearest(images, grid)]
    steps = chosen(run.array_steps("pos_arrangement_path"))
    places = [grid.coordinates] + [grid.coordinates[run.array("pos_arrangement_path", step)] for step in steps]
    layouts = [run.array("pos_layout", step) for step in [0, *steps]]
    scores = run.measurements("edge_recovery_path").set_index("step")["value"]
    frames = [frame(image, grid, true, places[0], layouts[0], 0, None)] * 8
    for number, step in enumerate(steps, 1):
        for part in np.linspace(0, 1, IN_BETWEEN + 1)[1:]:
            ease = part * part * (3 - 2 * part)
            moved = (places[number - 1] * (1 - ease) + places[number] * ease for places in (places, layouts))
            frames.append(frame(image, grid, true, *moved, step, scores[step]))
    frames += frames[-1:] * 25
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(TARGET, save_all=True, append_images=frames[1:], duration=70, loop=0, quality=70, method=4)
    print(f"{TARGET}: {len(frames)} frames, {TARGET.stat().st_size / 1e6:.2f} MB")


def chosen(steps: list[int]) -> list[int]:
    """All steps early, where most happens; fewer later."""
    return [step for step in steps if step <= 60 or step % 20 == 0]


def frame(image, grid, true, places, layout, step: int, score: float | None) -> Image.Image:
    canvas = Image.new("RGB", (2 * SIDE + 3 * MARGIN, SIDE + HEAD + MARGIN), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(16)
    title = f"step {step}" + ("" if score is None else f"     neighbours recovered: {score:.0%}")
    draw.text((MARGIN, 14), title, fill="#222222", font=font)
    draw.text((2 * MARGIN + SIDE, 14), "position embeddings in the plane", fill="#222222", font=font)
    paste_patches(canvas, image, grid, places)
    draw_layout(draw, grid.reordered(true), layout)
    return canvas


def paste_patches(canvas: Image.Image, image, grid, places) -> None:
    tall, wide = image.shape[0] // grid.height, image.shape[1] // grid.width
    cell = SIDE // max(grid.height, grid.width)
    for patch, (row, column) in enumerate(places):
        y, x = divmod(patch, grid.width)
        part = image[y * tall : (y + 1) * tall, x * wide : (x + 1) * wide]
        tile = Image.fromarray(part).resize((cell, cell), Image.Resampling.NEAREST)
        canvas.paste(tile, (round(MARGIN + column * cell), round(HEAD + row * cell)))


def draw_layout(draw: ImageDraw.ImageDraw, grid, layout) -> None:
    """The layout is at the scale of the grid already; a margin keeps stray dots in the panel."""
    size = np.array([grid.height, grid.width])
    scaled = ((layout - (size - 1) / 2) / (size.max() + 2) + 0.5).clip(0, 1) * SIDE
    dots = [(2 * MARGIN + SIDE + x, HEAD + y) for y, x in scaled]
    for one, other in np.argwhere(np.triu(grid.relation_pairs("edge"))):
        draw.line([dots[one], dots[other]], fill="#c4c4c4", width=1)
    for (x, y), colour in zip(dots, place_colours(grid), strict=True):
        draw.ellipse([x - 5, y - 5, x + 5, y + 5], fill=tuple(round(255 * part) for part in colour))


if __name__ == "__main__":
    main(*sys.argv[1:])
