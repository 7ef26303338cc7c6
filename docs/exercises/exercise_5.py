"""Exercise 5: raise phi until PGD and the proof meet.

For small phi a certificate proves that no noise fools the net; for large phi an attack shows noise that does. What
lies between the two is unknown. Close in from both sides, for one image. `nnlite.certify.is_proven` and
`nnlite.attacks.PGD` are the tools; both keep pixels in [0, 1] by default. Where nothing is proven and PGD finds
nothing, one of them is too weak: allow more splits, or try `nnlite.apgd.APGD`. Then run `make exercise N=5`.
"""


def meet(net, x, y, precision):
    """Return (proven, broken, example) for one image.

    Arguments:
        net: Dense and ReLU layers.
        x: The image, (1, D), which the net classifies correctly.
        y: Its label, (1,).
        precision: How far apart the two may be at the end.

    proven is a phi for which no noise fools the net; broken is a larger one, at most `precision` above it, for which
    the image `example` (1, D) does, with no pixel further than `broken` from x.
    """
    raise NotImplementedError("meet: halve the gap between what is proven and what is broken, until it is small enough")
