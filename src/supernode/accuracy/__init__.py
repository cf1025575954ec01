"""Accuracy: predictions against published measurements, by the path a user takes."""

from supernode.accuracy.judge import judge as judge
from supernode.accuracy.truth import DATA as DATA
from supernode.accuracy.truth import Row as Row
from supernode.accuracy.truth import load_truth as load_truth
