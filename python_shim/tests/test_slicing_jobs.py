"""A job's folder: what is kept, what is found again, and who may work in it."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
from hashlib import sha256
from types import SimpleNamespace

import numpy as np
import pytest
from slice_small import SIZES, child_of, job_of, write_parent

from prunebridge_shim.errors import Reason, ShimError, cancelled
from prunebridge_shim.slicing import owners
from prunebridge_shim.slicing.kept import Region
from prunebridge_shim.slicing.opened import OpenFolder
from prunebridge_shim.slicing.owners import Owner, Witness
from prunebridge_shim.slicing.run import slice_shards


@pytest.fixture(autouse=True)
def small_sizes(monkeypatch):
    for module, constants in SIZES.items():
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)


@pytest.fixture
def parent(tmp_path):
    write_parent(tmp_path / "parent")
    return tmp_path / "parent"


@pytest.fixture
def job(parent, tmp_path):
    return job_of(parent, tmp_path / "job")


@pytest.fixture
def expected(parent, tmp_path):
    """What an undisturbed run makes."""
    slice_shards(job_of(parent, tmp_path / "undisturbed"), quiet)
    return child_of(tmp_path / "undisturbed")


def quiet(_done, _total):
    """Takes no notice of progress."""


def data_bytes(shards):
    """Bytes behind the headers."""
    return sum(len(raw) - 8 - int.from_bytes(raw[:8], "little") for raw in shards.values())


def fail(job, reason, says, tick=quiet):
    with pytest.raises(ShimError, match=says) as caught:
        slice_shards(job, tick)
    assert caught.value.reason is reason
    return caught.value


@pytest.fixture
def broken_off(job, monkeypatch):
    """A job that was cancelled after about half of it."""
    with monkeypatch.context() as patch:
        patch.setattr("prunebridge_shim.slicing.crew.TICK_SECONDS", 0.0)
        slow_down(patch, 0.01)
        error = fail(job, Reason.CANCELLED, "cancelled", cancel_at(250_000))
    assert f"bytes are kept in {job.job_dir}" in error.hint
    return job


def cancel_at(bytes_done):
    def tick(done, _total):
        if done >= bytes_done:
            raise cancelled()

    return tick


def slow_down(patch, seconds):
    """Has each write take a while."""
    real = os.pwrite

    def pwrite(fd, data, offset):
        signal.sigtimedwait([], seconds)
        return real(fd, data, offset)

    patch.setattr(os, "pwrite", pwrite)


def fail_at(patch, name, number, call_error, times=1):
    """Has some calls of a function of os fail, from the n-th on; gives how often it was called."""
    real, calls = getattr(os, name), SimpleNamespace(count=0)

    def failing(*args):
        calls.count += 1
        if number <= calls.count < number + times:
            raise OSError(call_error, os.strerror(call_error))
        return real(*args)

    patch.setattr(os, name, failing)
    return calls


def fail_with(number):
    def failing(*_):
        raise OSError(number, os.strerror(number))

    return failing


def positions(axes, shape):
    """The elements that are kept of a region, counted in its own order."""
    kept = [np.arange(size) if one is None else one for size, one in zip(shape, axes, strict=True)]
    return np.arange(np.prod(shape)).reshape(shape)[np.ix_(*kept)].ravel()


@pytest.mark.parametrize("limit", [1, 7, 60, 999])
def test_pieces_cover_each_region_once_and_in_order(rng, limit):
    shape = (12, 9, 10)
    kept = np.sort(rng.choice(9, 5, replace=False))
    for axes in [(None, kept, None), (np.array([0, 2]), None, kept), (None, None, None), (kept, kept[:3], kept)]:
        parts = list(Region(7, shape, axes).split(limit))
        assert max(part.size for part in parts) <= limit
        found = [part.start + positions(part.axes, part.shape) for part in parts]
        assert np.array_equal(np.concatenate(found), 7 + positions(axes, shape))


def test_what_a_broken_off_run_left_is_found_and_only_the_rest_is_written(broken_off, expected, monkeypatch):
    written, real = [], os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: written.append(len(data)) or real(fd, data, offset))
    outcome = slice_shards(broken_off, quiet)
    assert child_of(broken_off.job_dir) == expected
    headers = sum(map(len, expected.values())) - data_bytes(expected)
    assert 100_000 < outcome.found_bytes < data_bytes(expected)
    assert sum(written) == data_bytes(expected) - outcome.found_bytes + headers


@pytest.mark.parametrize("after", ["a cancel", "the end"])
def test_a_piece_that_changed_on_the_disk_is_cut_again(broken_off, expected, after):
    if after == "the end":
        slice_shards(broken_off, quiet)
    undisturbed = shutil.copytree(broken_off.job_dir, broken_off.job_dir.with_name("copy"))
    file = broken_off.job_dir / "child" / "1.safetensors"
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 4] ^= 1
    file.write_bytes(raw)
    outcome = slice_shards(broken_off, quiet)
    found = slice_shards(job_of(broken_off.source_dir, undisturbed), quiet).found_bytes
    assert child_of(broken_off.job_dir) == expected == child_of(undisturbed)
    assert 0 < found - outcome.found_bytes <= 10_000


def test_a_shard_that_is_gone_or_short_is_cut_again(broken_off, expected):
    (broken_off.job_dir / "child" / "0.safetensors").unlink()
    os.truncate(broken_off.job_dir / "child" / "1.safetensors", 2000)
    slice_shards(broken_off, quiet)
    assert child_of(broken_off.job_dir) == expected


def test_a_journal_that_a_crash_spoilt_costs_no_more_than_its_lines(broken_off, expected):
    (journal,) = (broken_off.job_dir / "journals").iterdir()
    first, *rest = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"\0" * 30 + b"\n[1]\n" + b'{"piece": 1}\n' + b"".join(rest) + b'{"piece": 0, "crc')
    outcome = slice_shards(broken_off, quiet)
    assert child_of(broken_off.job_dir) == expected
    assert 0 < outcome.found_bytes <= 10_000 * len(rest)
    assert first


def test_a_wrong_crc_in_a_journal_is_not_believed(broken_off, expected):
    for journal in (broken_off.job_dir / "journals").iterdir():
        lines = [json.loads(line) for line in journal.read_text().splitlines()]
        journal.write_text("".join(f"{json.dumps({**line, 'crc32': 1})}\n" for line in lines))
    outcome = slice_shards(broken_off, quiet)
    assert outcome.found_bytes == 0
    assert child_of(broken_off.job_dir) == expected


def test_a_run_that_stops_before_anything_is_written_leaves_nothing(job, monkeypatch):
    slow_down(monkeypatch, 0.5)
    error = fail(job, Reason.CANCELLED, "cancelled", cancel_at(0))
    assert error.hint == ""
    assert not job.job_dir.exists()


def test_another_job_begins_anew(broken_off, tmp_path):
    other = job_of(broken_off.source_dir, broken_off.job_dir, seed=1)
    outcome = slice_shards(other, quiet)
    slice_shards(job_of(broken_off.source_dir, tmp_path / "fresh", seed=1), quiet)
    assert outcome.found_bytes == 0
    assert child_of(other.job_dir) == child_of(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "job", "parent"]


def test_a_parent_that_changed_since_begins_anew(broken_off, tmp_path):
    write_parent(broken_off.source_dir, seed=1)
    outcome = slice_shards(broken_off, quiet)
    slice_shards(job_of(broken_off.source_dir, tmp_path / "fresh"), quiet)
    assert outcome.found_bytes == 0
    assert child_of(broken_off.job_dir) == child_of(tmp_path / "fresh")


def test_a_folder_whose_job_was_never_told_is_taken(broken_off, expected):
    (broken_off.job_dir / "job.json").write_text("")
    slice_shards(broken_off, quiet)
    assert child_of(broken_off.job_dir) == expected


def test_a_folder_is_told_from_the_next_one_of_the_same_job(broken_off, tmp_path):
    first = slice_shards(broken_off, quiet).folder_id
    assert slice_shards(broken_off, quiet).folder_id == first
    broken_off.job_dir.rename(tmp_path / "aside")
    assert slice_shards(broken_off, quiet).folder_id != first


def test_another_job_of_a_process_that_lives_is_left_alone(broken_off):
    Owner(OpenFolder(broken_off.job_dir / "owners"))
    before = child_of(broken_off.job_dir)
    other = job_of(broken_off.source_dir, broken_off.job_dir, seed=1)
    error = fail(other, Reason.TARGET_BUSY, f"another job is being cut in {broken_off.job_dir}")
    assert "name another target" in error.hint
    assert child_of(broken_off.job_dir) == before


@pytest.mark.parametrize("beats", [True, False])
def test_another_job_of_another_machine_is_busy_while_its_heart_beats(broken_off, monkeypatch, beats):
    monkeypatch.setattr(owners, "_place", lambda: "elsewhere")
    owner = Owner(OpenFolder(broken_off.job_dir / "owners"))
    monkeypatch.setattr(owners, "_place", lambda: "here")
    stop = threading.Event()

    def beat():
        while beats and not stop.wait(0.02):
            owner.beat()

    thread = threading.Thread(target=beat)
    thread.start()
    other = job_of(broken_off.source_dir, broken_off.job_dir, seed=1)
    try:
        if beats:
            fail(other, Reason.TARGET_BUSY, "another job is being cut")
        else:
            assert slice_shards(other, quiet).found_bytes == 0
    finally:
        stop.set()
        thread.join()


def test_an_owner_is_gone_with_its_process_and_not_with_another_of_its_id(tmp_path, monkeypatch):
    owner, witness = Owner(OpenFolder(tmp_path)), Witness(OpenFolder(tmp_path))
    assert not witness.is_gone(owner.name)
    card = json.loads((tmp_path / owner.name).read_text())
    with subprocess.Popen(["/bin/true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        (tmp_path / "zombie").write_text(json.dumps({**card, "pid": process.pid, "started": card["started"]}))
        assert witness.is_gone("zombie")
    (tmp_path / "older").write_text(json.dumps({**card, "started": "1"}))
    assert witness.is_gone("older")
    owner.leave(done=False)
    assert witness.is_gone(owner.name)


def test_an_owner_that_ended_well_is_believed_by_those_who_knew_it(tmp_path):
    owner, early = Owner(OpenFolder(tmp_path)), Witness(OpenFolder(tmp_path))
    assert early.is_at_work(owner.name)
    owner.leave(done=True)
    assert not early.is_gone(owner.name)
    assert not early.is_at_work(owner.name)
    assert Witness(OpenFolder(tmp_path)).is_gone(owner.name)


def overwrite(file):
    with file.open("r+b") as opened:
        opened.seek(-1, os.SEEK_END)
        opened.write(b"x")


def replace(file):
    copy = file.with_suffix(".copy")
    shutil.copy2(file, copy)
    copy.rename(file)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda file: os.truncate(file, 5000), "was (written to or )?truncated"),
        (overwrite, "was written to or truncated"),
        (replace, "was replaced"),
        (lambda file: file.unlink(), "was removed"),
    ],
    ids=["truncated", "overwritten", "replaced", "removed"],
)
def test_a_parent_that_changes_underneath_leaves_nothing(job, monkeypatch, change, says):
    slow_down(monkeypatch, 0.001)
    changed = []

    def tick(done, _total):
        if done > 100_000 and not changed:
            changed.append(change(job.source_dir / "b.safetensors"))

    monkeypatch.setattr("prunebridge_shim.slicing.crew.TICK_SECONDS", 0.0)
    error = fail(job, Reason.SOURCE_CHANGED, f"b.safetensors {says} while it was cut", tick)
    assert changed
    assert "kept" not in error.hint
    assert not job.job_dir.exists()


def test_a_full_disk_keeps_what_was_written(job, expected, monkeypatch):
    with monkeypatch.context() as patch:
        fail_at(patch, "pwrite", 60, errno.ENOSPC, times=10**6)
        error = fail(job, Reason.STORAGE_FULL, r"child/\d.safetensors: No space left")
    assert "bytes are kept" in error.hint
    assert slice_shards(job, quiet).found_bytes > 0
    assert child_of(job.job_dir) == expected


def test_a_limit_on_file_sizes_keeps_what_was_written(job, expected):
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        error = fail(job, Reason.STORAGE_FULL, r"child/\d.safetensors: File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert "bytes are kept" in error.hint
    slice_shards(job, quiet)
    assert child_of(job.job_dir) == expected


def test_a_small_file_system_is_told_before_it_is_filled(parent, tmp_path, expected):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting takes a right that this user lacks")
    job = job_of(parent, disk / "job")
    try:
        fail(job, Reason.STORAGE_FULL, "bytes are left to write")
        assert list(disk.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        slice_shards(job, quiet)
        assert child_of(job.job_dir) == expected
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_up_meanwhile(parent, tmp_path, expected, monkeypatch):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting takes a right that this user lacks")
    job = job_of(parent, disk / "job")
    try:
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 30))
            error = fail(job, Reason.STORAGE_FULL, "No space left")
        assert "bytes are kept" in error.hint
        subprocess.run(["mount", "-o", "remount,size=4m", disk], check=True)
        assert slice_shards(job, quiet).found_bytes > 0
        assert child_of(job.job_dir) == expected
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_read_that_fails_names_its_file_and_keeps_what_was_written(job, expected, monkeypatch):
    with monkeypatch.context() as patch:
        fail_at(patch, "preadv", 60, errno.EIO)
        error = fail(job, Reason.STORAGE_FAILED, r"parent/[ab].safetensors: Input/output error")
    assert "bytes are kept" in error.hint
    slice_shards(job, quiet)
    assert child_of(job.job_dir) == expected


def test_a_flush_that_fails_is_not_tried_again_nor_believed(job, expected, monkeypatch):
    with monkeypatch.context() as patch:
        flushes = fail_at(patch, "fdatasync", 1, errno.EIO)
        fail(job, Reason.STORAGE_FAILED, r"child/\d.safetensors: Input/output error")
        assert flushes.count == 1
    assert not job.job_dir.exists()
    slice_shards(job, quiet)
    assert child_of(job.job_dir) == expected


@pytest.mark.parametrize("call", ["preadv", "pwrite"])
def test_a_file_that_its_server_forgot_is_opened_anew_once(job, expected, monkeypatch, call):
    with monkeypatch.context() as patch:
        fail_at(patch, call, 40, errno.ESTALE)
        slice_shards(job, quiet)
    assert child_of(job.job_dir) == expected
    shutil.rmtree(job.job_dir)
    with monkeypatch.context() as patch:
        fail_at(patch, call, 40, errno.ESTALE, times=10**6)
        fail(job, Reason.STORAGE_FAILED, "Stale file handle")


@pytest.mark.parametrize("call", ["preadv", "pwrite"])
def test_short_reads_and_writes_go_on(job, expected, monkeypatch, call):
    real = getattr(os, call)

    def short(fd, data, offset):
        return real(fd, [data[0][:1000]] if call == "preadv" else data[:1000], offset)

    monkeypatch.setattr(os, call, short)
    slice_shards(job, quiet)
    assert child_of(job.job_dir) == expected


def test_a_file_of_the_parent_is_never_written(broken_off):
    source, shard = broken_off.source_dir / "a.safetensors", broken_off.job_dir / "child" / "0.safetensors"
    before = source.read_bytes()
    shard.unlink()
    os.link(source, shard)
    fail(broken_off, Reason.PATH_DENIED, "0.safetensors is a file of the parent under another name")
    assert source.read_bytes() == before


def test_nothing_is_flushed_where_that_is_left_out(parent, tmp_path, expected, monkeypatch):
    flushes = [fail_at(monkeypatch, name, 0, errno.EIO, times=0) for name in ("fsync", "fdatasync")]
    slice_shards(job_of(parent, tmp_path / "job", flush=False), quiet)
    assert sum(calls.count for calls in flushes) == 0
    assert child_of(tmp_path / "job") == expected
    slice_shards(job_of(parent, tmp_path / "flushed"), quiet)
    assert all(calls.count > 0 for calls in flushes)


def test_sha256(parent, tmp_path, expected):
    outcome = slice_shards(job_of(parent, tmp_path / "job", sha256=True), quiet)
    assert {one.file: one.sha256 for one in outcome.shards} == {n: sha256(raw).digest() for n, raw in expected.items()}
    plain = slice_shards(job_of(parent, tmp_path / "job"), quiet)
    assert {one.sha256 for one in plain.shards} <= {b"", *(one.sha256 for one in outcome.shards)}
    assert plain.found_bytes == data_bytes(expected)


def tree_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("how", ["inside", "itself", "around", "by a link", "around a linked file"])
def test_a_job_and_its_parent_lie_apart(parent, tmp_path, how):
    outer = tmp_path / "outer"
    if how == "around":
        outer.mkdir()
        parent = parent.rename(outer / "parent")
    elif how == "around a linked file":
        outer.mkdir()
        (parent / "a.safetensors").rename(outer / "blob")
        (parent / "a.safetensors").symlink_to(outer / "blob")
    (tmp_path / "link").symlink_to(parent)
    places = {"inside": parent / "job", "itself": parent, "by a link": tmp_path / "link" / "job"}
    before = tree_of(tmp_path)
    fail(job_of(parent, places.get(how, outer)), Reason.PATH_DENIED, "lies within", cancel_at(0))
    assert tree_of(tmp_path) == before
    assert not (parent / "job").exists()


FOREIGN = {
    "a job of something else": {"job.json": '{"format": "cron/1", "identity": "x"}', "child/weights": "w"},
    "no JSON": {"job.json": "steps:", "owners/me": "w"},
    "parts alone": {"child/weights": "w"},
    "a file beside": {"notes.txt": "n"},
}


@pytest.mark.parametrize("holds", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_that_is_no_jobs_is_left_as_it_is(job, holds):
    for name, content in holds.items():
        (job.job_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (job.job_dir / name).write_text(content)
    before = sorted(job.job_dir.rglob("*"))
    fail(job, Reason.INVALID_REQUEST, "no slicing job's folder")
    assert sorted(job.job_dir.rglob("*")) == before


def test_an_entry_beside_another_jobs_own_is_not_removed(broken_off):
    (broken_off.job_dir / "notes.txt").write_text("n")
    before = tree_of(broken_off.job_dir)
    fail(job_of(broken_off.source_dir, broken_off.job_dir, seed=1), Reason.INVALID_REQUEST, "holds notes.txt")
    assert tree_of(broken_off.job_dir) == before


def test_no_more_than_a_jobs_own_is_removed(job, monkeypatch):
    slow_down(monkeypatch, 0.5)
    added = []

    def tick(_done, _total):
        if (job.job_dir / "job.json").exists():
            added.append((job.job_dir / "notes.txt").write_text("n"))
            raise cancelled()

    fail(job, Reason.CANCELLED, "cancelled", tick)
    assert added
    (left,) = job.job_dir.parent.glob("job.discarded-*")
    assert {str(name) for name in tree_of(left)} == {"notes.txt"}


def test_an_empty_folder_and_empty_parts_are_taken(job, expected):
    (job.job_dir / "leases").mkdir(parents=True)
    slice_shards(job, quiet)
    assert child_of(job.job_dir) == expected


def test_a_run_that_flushes_does_not_believe_one_that_did_not(job, expected):
    slice_shards(job_of(job.source_dir, job.job_dir, flush=False), quiet)
    assert slice_shards(job, quiet).found_bytes == 0
    assert child_of(job.job_dir) == expected


def test_names_of_others_in_a_jobs_folders_are_passed_over(broken_off, expected):
    for part in ("owners", "leases", "journals"):
        for name in (".nfs00000001", ".DS_Store", "a.b.c"):
            (broken_off.job_dir / part / name).write_text("")
    (broken_off.job_dir / ".nfs00000001").write_text("")
    assert slice_shards(broken_off, quiet).found_bytes > 0
    assert child_of(broken_off.job_dir) == expected


def test_leases_that_tell_no_owner_yet_are_watched_each_by_itself(tmp_path, monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(owners.time, "monotonic", lambda: now.seconds)
    witness = Witness(OpenFolder(tmp_path))
    assert witness.is_at_work("", "1.0")
    now.seconds = owners.STALE_SECONDS + 1
    assert not witness.is_at_work("", "1.0")
    assert witness.is_at_work("", "2.0")


def test_a_job_that_ended_is_not_busy(tmp_path):
    owner, witness = Owner(OpenFolder(tmp_path)), Witness(OpenFolder(tmp_path))
    assert witness.at_work() == {owner.name: True}
    owner.leave(done=True)
    assert witness.at_work() == {}
    assert witness.others() == [owner.name]


def test_a_run_that_ends_leaves_no_sign_of_life_whatever_failed(broken_off, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("prunebridge_shim.slicing.journal.Journals.refresh", fail_with(errno.EIO))
        fail(broken_off, Reason.STORAGE_FAILED, "Input/output error")
    assert list((broken_off.job_dir / "owners").iterdir()) == []
    assert slice_shards(broken_off, quiet).found_bytes > 0
