"""The everyday model measured: what its streams answer, how sure they are, and what finds what.

`python -m experiments.everyday MODEL --data FOLDER` scores a split of collections whose folders the label
table knows. `python -m experiments.everyday.elsewhere MODEL FILE ...` answers files of any origin.
"""
