"""What the page says of each figure: its question, what to look at, what it would be without structure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prose:
    """Words of one section; line breaks are spaces."""

    title: str
    look: str
    nothing: str


PROSE = {
    "use": Prose(
        "Does the model use its positions?",
        """The premise of all that follows. First figure, left: how much the loss rises when the patches of each image
        are shuffled, so that contents stay and positions no longer fit them; a line that climbs above 0 is a model that
        comes to rely on positions. Right: what that costs in accuracy; the more a line falls, the more. Second figure:
        what the very first scores are made of. As long as bars are grey, only contents answer to each other; in the
        blue parts the position of the patch looked at counts, in the dark ones positions alone.""",
        """The line stays at 0, as that of the scrambled arm, whose patches are shuffled in training already. Then the
        model does not use positions: a map may still form in its position embedding, but nothing reads it, and claims
        about space are not judged. In the second figure the blue parts are thin. The orange one need not be: what all
        queries have in common counts there too, so compare it with the scrambled arm.""",
    ),
    "contents": Prose(
        "What is left when the contents are shuffled?",
        """A patch may look at its neighbour because it is the neighbour, or because the two look alike, as neighbours
        often do. Shuffling the patches of an image afresh takes the second reason away: what attention still does in
        the right column it does because of positions. Compare the columns. Lines of the natural arm that part on the
        right, edge neighbours above 0 and far pairs below, are attention that follows space. The claims on neighbours
        and far patches are judged by the right column.""",
        """On the right all lines lie together at 0, as they should in the scrambled arm (thin and broken). What parts
        on the left alone is the likeness of contents, not space.""",
    ),
    "images": Prose(
        "What the models see",
        """The same held-out images, as the models of each arm get them. A Vision Transformer cuts an image into
        patches and treats them as a set, so for the model itself the arms differ only in which patches keep
        company.""",
        """In the scrambled arm no place has neighbours: there is nothing of space to be learned, and so it is the
        control of the claims. In the shuffled arm the neighbours of a place are always the same, only not the
        ones you expect: space is there to be found.""",
    ),
    "similarity": Prose(
        "Which places does the model hold to be alike?",
        """Each small tile belongs to one patch and stands where that patch is in the image. It shows how much the
        patch’s position embedding is like that of every other patch, each at its own place: red alike, white
        unrelated, blue opposite. Look for a red spot in every tile that sits where the tile itself sits.""",
        """Every tile is noise around one dark cell, the patch itself. So the scrambled arm should look, and the
        shuffled arm on the grid that the model sees; put back on its true grid, it should look like the natural
        arm.""",
    ),
    "layout": Prose(
        "The map that forms",
        """Each dot is a patch, put where its position embedding alone says that it is (the plane that keeps
        likeness best, then turned, mirrored and scaled to fit the image as well as it can). Colour tells where the
        patch truly is, lines join true neighbours. Follow a row from left to right: a tangle that unfolds into a
        sheet is a map being learned. In the shuffled arm, where it unfolds, the gradient has put the image back
        together.""",
        """The dots stay a tangle: lines criss-cross and colours are mixed. Nothing fits, so the best fit is
        small.""",
    ),
    "falloff": Prose(
        "When the map forms, and how sure that is",
        """Left: how well the likeness of position embeddings falls with distance on the grid. Right: how well row
        and column can be read from a position embedding left out of the fit. A thin line is one seed, a thick line
        the mean. The natural arm should rise, and the shuffled one with it, but on its true grid only.""",
        """The falloff stays inside the grey band, where 99 % of random relabellings of the patches fall, and R²
        stays at or below 0.""",
    ),
    "routes": Prose(
        "Where the map came from",
        """Position embeddings are moved by the gradient, and the gradient is an exact sum over routes: what came to
        them through the queries, the keys and the values of each layer, through each MLP, or past them all through the
        skips into the classifier. The ledger credits each route with what its part of every update added to the map.
        First figure, left: what each route has added so far, stacked; the black line is the whole change. Right: the
        same at the end, by layer. Second figure: how hard each route’s gradient pulled in single batches. If it is
        queries and keys that make the map, blue makes up more than half of the stack.""",
        """Where no map forms, the whole change stays at 0; routes may still add and take away, but they cancel. Shares
        are signed: a route may undo what others built, and another then stands at more than 100 %.""",
    ),
    "cuts": Prose(
        "Is the map lost when a route is cut?",
        """A ledger says what happened; a cut says what was needed. In each cut arm the models are trained on natural
        images with one part of the gradient taken away, everything else untouched. “Without q, k”: nothing that comes
        through queries and keys reaches the position embeddings. If that route is needed, the line stays low; if the
        route that is left is enough, it rises like that of the natural arm.""",
        """A cut that takes away all that builds the map leaves its arm inside the grey band, beside the scrambled
        arm.""",
    ),
    "distance": Prose(
        "How far each head looks",
        """Each dot is one head of one seed: the mean distance between a patch and the patches it attends to. Hollow
        dots are heads before training, filled ones after, each group in rising order. Look for filled dots below the
        dashed line (heads that look nearby) and for heads of one layer that spread apart (some local, some global).
        Above: images as they are. Below: their patches shuffled; heads that still look nearby do so because of
        positions, not because neighbours look alike.""",
        """A head that does not care about places lies on the dashed line, the distance of uniform attention; before
        training all heads are close to it.""",
    ),
    "unscrambling": Prose(
        "The picture put back together",
        """The model of the shuffled arm never sees a picture whole: its patches are permuted, the same way for every
        image. If training tells the position embedding who is near whom, whoever reads only the position embedding can
        undo the permutation, up to turning and mirroring. Two readings: the table as it is at a step, and the path it
        has taken, step by step, until then. The score: the share of patches that were neighbours and are again.""",
        """An arrangement at chance keeps about one in twenty pairs of neighbours on an 8 × 8 grid. Putting patches
        together is no feat as such: the pixels at their borders are enough, as the dotted line shows. The point is
        that the position embedding is given no pixel, only the gradient of a loss that never mentions places.""",
    ),
    "gradients": Prose(
        "What the gradient asks for",
        """For each pair of patches the gradient of the loss says whether attention between them should grow or shrink.
        Here it is averaged by how the two patches lie to each other, and compared with pairs that lie in between: above
        0 the loss asks for more attention than there, below 0 for less. If the usual explanation is right, the line of
        edge neighbours lies above 0 and that of far pairs below, in the natural arm only. Look at each layer by itself,
        and at the beginning as well as the end: the sign may change from layer to layer and over time.""",
        """All lines stay at 0 within their bands, as they should in the scrambled arm. Panels of one layer share their
        scale; different layers do not.""",
    ),
    "scores": Prose(
        "Whose gradient moved attention?",
        """The gradient on the weights that make queries and keys is a sum over pairs of patches, so it can be told
        which pairs’ gradient did what. Here each part of every update is credited with what it added to attention at
        edge neighbours (top) and at far pairs (bottom), on held-out images. “Drift” is what changed because the tokens
        themselves changed: the position embedding, the values and the MLPs learned too. The black line, or mark, is the
        whole change. If neighbours come together because the loss pulls at neighbours, blue stands above 0 at the top;
        if far patches are pushed apart by what the loss asks of far pairs, orange hangs below 0 at the bottom.
        Attention in a row sums to 1, so pairs can also lose because others gain: look at the other colours too.""",
        """Parts cancel and the black line stays at 0. Large parts of opposite sign with little change in sum say that
        the weights moved in ways that other weights undid.""",
    ),
    "alignment": Prose(
        "Do queries and keys of neighbours point the same way?",
        """How much the query of a patch points in the direction of the key of another, over the distance of the two;
        dotted before training, full after. A line that falls from left to right says that nearby patches answer to each
        other and far ones do not. Left: images as they are; right: their patches shuffled, where only positions can
        make a line fall. Layers may differ: compare them before believing a sentence about “the model”.""",
        """The lines are flat. Their height says nothing about space, only whether queries and keys agree at
        all.""",
    ),
    "head-maps": Prose(
        "Where does each head look?",
        """Each small map is one head at one step: the middle is the patch that looks, and a cell beside it is the patch
        that lies so, whichever patch looks. Red: more attention than if the head looked everywhere alike; blue: less. A
        red middle is a head that looks at the patch itself, a red spot around it a local head, a red bar a head that
        follows rows or columns. Follow a head from left to right: it starts as noise. The last map, “shuffled”, is the
        same head after training on images whose patches are shuffled: a pattern that stays is made of positions, one
        that fades was made of contents that look alike.""",
        """The maps stay white or speckled, and no head has a role below it. Read the scale of the colours first: pale
        maps with a scale close to × 1 are heads that look nearly everywhere alike, whatever their pattern.""",
    ),
    "divergence": Prose(
        "Do heads come apart, and do their gradients come apart first?",
        """First figure, which the claim is judged by: how unlike the heads of one layer are in which patches they look
        at, query by query; left on images as they are, right with shuffled contents. Second figure, as a description:
        how unlike they are in how far and which way they look, and how unlike the gradients are that they get, that is,
        what the loss asks of each. What noise alone would give is subtracted. If heads specialise, the line of the
        natural arm rises above that of the scrambled one; if it is their own gradients that drive them apart, the line
        of the gradients rises too, and no later. A triangle marks the step at which a run’s line leaves its first
        level, its bar the 95 % interval; a run without one has no change that is sure.""",
        """The lines stay at 0 and no triangles are drawn. A line that rises on images as they are and not with shuffled
        contents says that heads follow different contents, not different positions. Noise around 0 in what gradients
        ask for says that the heads of a layer are asked for the same.""",
    ),
    "roles": Prose(
        "Which roles do heads take on?",
        """Each role is a score with a threshold that chance does not pass: local (looks at its neighbours), near
        (within an eighth of the image), self, horizontal and vertical (its row, its column), offset (one displaced
        patch), direction (one side of the patch), global (everywhere alike), place (the same positions in every image),
        sink (a few tokens draw all patches of an image), contour (strong edges), texture (patches of similar detail),
        similar (similar keys or values), prefix (class and register tokens). Compare the panels: a role that training
        on natural images makes is rare before training and in the scrambled arm. The lower panels show the same heads
        on images whose patches are shuffled: a role that stays there is one of positions.""",
        """The panels look alike. Global heads before training are no finding: a head that has learned nothing looks
        everywhere alike. Self, sink, contour, texture, similar and prefix may be true of scrambled images too, which
        have patches but no places. Where patches in the middle differ from those at the border, as in pictures of
        digits, a head that follows contents looks at the same positions in every image: read place, and direction, on
        images whose patches are shuffled.""",
    ),
    "pruning": Prose(
        "Which heads could go?",
        """Left: how much the loss rises when the output of one head is replaced by its mean over images, so that it can
        no longer tell one image from another. Dots high above 0 are heads the model needs; those on the line do nothing
        that can be seen on these images. Right: any two heads of a layer; far up are heads that write the same into the
        tokens, far to the right heads that look at the same places. Above the dashed line one could stand in for the
        other.""",
        """Without structure all dots lie on 0: a model that has learned nothing misses none of its heads. Below 0 it is
        better off without the head.""",
    ),
    "training": Prose(
        "Did the models learn their task?",
        """Loss and accuracy on held-out images: a thin line is one seed, a thick one the mean. Read the other
        figures with these in mind: from a model that has learned little, little follows.""",
        """A model that learns nothing stays at the accuracy of guessing. The scrambled arm may well learn the task,
        from the contents of patches alone.""",
    ),
}  # fmt: skip
"""By anchor of the section, in no particular order."""
