"""A job that trains with a guest is the job that it would be without, bit for bit."""

import pytest
from launch import read
from test_guests import batches_of, check_scores, collect, running

DROPOUT = {"hidden_dropout": 0.1, "attention_dropout": 0.1}
RECOMPUTED = {"recompute_granularity": "full", "recompute_method": "uniform", "recompute_num_layers": 1}
JOBS = {
    "data": (2, {"parent": "llama-gqa", "config": DROPOUT}),
    "tensors": (2, {"parent": "llama-gqa", "tp": 2, "config": {**DROPOUT, **RECOMPUTED, "sequence_parallel": True}}),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with running(folder, JOBS, "train_with_a_guest") as jobs:
        for step in (1, 3):
            for name in JOBS:
                client = jobs.client(name)
                feed_id = f"feed-{step}"
                operation = client.start(collect=collect(client, "llama-gqa", feed_id=feed_id))
                call = client.feed_in_background(feed_id, batches_of("llama-gqa"))
                (folder / f"{name}.asked.{step}").touch()
                assert call.result(60).batches == len(batches_of("llama-gqa"))
                assert client.watch(operation)[-1].HasField("succeeded")
                if step == 1:
                    check_scores_of_trained(client.read(operation))
    return (folder, *jobs.outcome)


def check_scores_of_trained(sums):
    # One step was taken: the scores are near the golden ones, and not the same.
    with pytest.raises(AssertionError):
        check_scores(sums, "llama-gqa")


@pytest.mark.parametrize("name", JOBS)
def test_training_is_what_it_was_alone(name, trained):
    folder, exits, log = trained
    assert exits[name] == [0, 0], log
    for rank in range(2):
        alone, hosted = (read(folder, f"{name}.{rank}.{how}") for how in ("alone", "hosted"))
        assert hosted["losses"] == alone["losses"]
        assert hosted["digest"] == alone["digest"]
        assert all(hosted["default_handlers"])


@pytest.mark.parametrize("name", JOBS)
def test_steps_leave_no_thread_and_no_group(name, trained):
    folder, _exits, _log = trained
    threads, groups = zip(*read(folder, f"{name}.1.hosted")["left"], strict=True)
    assert len(set(threads)) == len(set(groups)) == 1
