"""What a return series proves, and how often that is wrong.

Pure functions of numbers, vectorised over strategies, each with its source.  What has no answer is
NaN, and every comparison with one, here and elsewhere, is written so that NaN fails it: nothing
missing is ever evidence.
"""
