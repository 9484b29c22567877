"""The chapters' larger experiments, as functions on any data sets: arms, splits and seeds in, a tidy table out.

One module a chapter. A chapter shows what an experiment asks and how an arm is made; the loops over arms, data sets and
seeds stand here, are tested, and serve your own files as they serve the book's.
"""
