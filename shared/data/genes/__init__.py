"""Names of genes: lists and their hash (``lists``), kinds of names (``kinds``), other names (``translate``)."""
