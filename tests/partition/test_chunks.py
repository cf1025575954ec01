"""Where a pipeline is cut, and what its stages send each other."""

from collections import Counter

from supernode.capture import capture
from supernode.ir import SEND
from supernode.models import recipe
from supernode.partition import partition
from supernode.partition.chunks import cut

MB = 2**20


def test_equal_layers_are_cut_in_equal_chunks() -> None:
    assert cut([1e12] * 8, [MB] * 8, 4) == [2, 4, 6]


def test_the_scores_of_a_vocabulary_stay_with_their_loss() -> None:
    # Eight layers, a head, a loss as heavy as the head: four times what a layer is.
    weights, crossing = [1e12] * 8 + [4e12, 4e12], [MB] * 9 + [64 * MB]
    assert cut(weights, crossing, 4) == [3, 6, 8]
    assert cut(weights, crossing, 9) == [1, 2, 3, 4, 5, 6, 7, 8]


def test_much_is_sent_on_where_there_is_no_other_place() -> None:
    assert cut([1e12, 1e12, 4e12, 4e12], [MB, MB, MB, 64 * MB], 4) == [1, 2, 3]
    assert cut([1e12, 1e12], [MB, MB], 3) is None


def test_backward_is_where_its_activations_are() -> None:
    # Layers as blocks, whose backward begins with an op of the next one.
    shape = {"layers": 9, "hidden": 64, "ffn": 32, "heads": 2, "experts": 16, "vocab": 64}
    job = recipe("deepseek-v3").with_shape(shape).build(batch=2, device="meta", sequence=16)
    program = capture(job.step, job.model, job.optimizer, job.inputs).program
    sent: Counter[str] = Counter()
    for _, stage in partition(program, "pp=2,vp=2,micro=2").stages():
        for op in stage.main.ops:
            if op.name == SEND:
                sent[op.site.phase] += op.inputs[0].type.size_bytes
    # An activation, what is left of the loss and small state: not what a layer keeps.
    assert 0 < sent["backward"] < sent["forward"] < 3 * sent["backward"]
