"""`python -m drive_sync`: for a person who wants to look at a run's folder on Drive, or move snapshots by hand."""
import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from drive_sync.errors import SnapshotBroken, in_words
from drive_sync.lease import Lease
from drive_sync.manifest import MARKER
from drive_sync.progress import shown
from drive_sync.snapshot import Snapshot
from drive_sync.source import source_bytes
from drive_sync.status import duration
from drive_sync.store import Store
from drive_sync.upload import Upload, upload_state

OK, NO, CANNOT = 0, 1, 2  # exit codes: yes, the answer is no, it could not run
_UPLOADED = {Upload.CONFIRMED: "Drive has all of it", Upload.PENDING: "Drive does not have all of it yet",
             Upload.UNVERIFIED: "this folder does not tell whether Drive has it"}
_EXAMPLES = """examples:
  python -m drive_sync status /content/drive/MyDrive/vaani/first-voice
  python -m drive_sync verify /content/drive/MyDrive/vaani/first-voice --kind ckpt
  python -m drive_sync pull   /content/drive/MyDrive/vaani/first-voice --kind best --into voices
  python -m drive_sync push   /content/drive/MyDrive/vaani/first-voice --from checkpoint --label ckpt-e0012-s004800

exit codes: 0 all is well, 1 something is damaged or not there, 2 it could not run"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code; what a person can cause is one sentence on standard error."""
    options = _parser().parse_args(arguments)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
    except (OSError, ValueError) as error:
        words = in_words(error) if isinstance(error, OSError) and error.errno is not None else str(error)
        if isinstance(error, OSError) and error.filename and str(error.filename) not in words:
            words = f"{error.filename}: {words}"
        print(words.rstrip(".") + ".", file=sys.stderr)
    return CANNOT


def status(options: argparse.Namespace) -> int:
    """How the run stands, in a sentence; then one line a snapshot: its size, whether its files are there (by their sizes;
    `verify` reads them), whether Drive has them."""
    store = _existing_store(options.folder)
    found = {snapshot: snapshot.verify(deep=False) for snapshot in (
        Snapshot(name, store.reach) for name in store.all_names())}
    print(f"{_standing(store, found)} {Lease(store).who_works()}")
    for snapshot, problems in found.items():
        print(f"{snapshot.name:44} {problems[0] if problems else _size_and_upload(snapshot)}")
    print(f"{store.reach.disk.free(store.folder) / 1e9:.1f} GB free there, as the mount tells it")
    newest = {snapshot.kind: not problems for snapshot, problems in found.items() if snapshot.is_finished()}
    return OK if newest and all(newest.values()) else NO


def verify(options: argparse.Namespace) -> int:
    """Reads every byte of every snapshot and says what is wrong."""
    snapshots = _existing_store(options.folder).snapshots(options.kind)
    damaged = 0
    for snapshot in snapshots:
        with shown(snapshot.reach, snapshot.name, _bytes(snapshot)):
            problems = snapshot.verify(reread=False)
        damaged += bool(problems)
        print(f"{snapshot.name:44} {'; '.join(problems) or 'every byte is as published'}", flush=True)
    print(f"{len(snapshots)} snapshots, {damaged} damaged")
    return OK if snapshots and not damaged else NO


def pull(options: argparse.Namespace) -> int:
    """Fetches the newest whole snapshot of a kind and prints where it is."""
    store = _existing_store(options.folder)
    found = store.fetch_latest(options.kind, options.into, _complain,
                               lambda snapshot: shown(store.reach, snapshot.name, _bytes(snapshot)))
    if found is None:
        _complain(f"There is no whole snapshot of kind {options.kind} in {options.folder}.")
        return NO
    print(found[1])
    return OK


def push(options: argparse.Namespace) -> int:
    """Publishes a folder, reads it back and prints its name."""
    store = Store(options.folder)
    with shown(store.reach, f"publishing {options.label}", source_bytes(options.source)):
        snapshot = store.publish(options.source, options.label, options.share)
    with shown(store.reach, f"reading {options.label} back", _bytes(snapshot)):
        problems = snapshot.verify()
    print(f"{snapshot.name}: {'; '.join(problems) or upload_state(store.reach, snapshot.files(), checksums=True)}")
    return NO if problems else OK


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m drive_sync", description=__doc__, epilog=_EXAMPLES, formatter_class=raw)
    commands = parser.add_subparsers(required=True, metavar="status|verify|pull|push")

    def add(command, help_text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(command.__name__, help=help_text, description=command.__doc__, epilog=_EXAMPLES,
                                  formatter_class=raw)
        sub.add_argument("folder", metavar="FOLDER", help="the run's folder on Drive, or a local checkpoints folder")
        sub.set_defaults(command=command)
        return sub

    add(status, "what is there, and who works on it")
    add(verify, "read every byte").add_argument("--kind", help="only snapshots of this kind, such as ckpt")
    fetching = add(pull, "fetch the newest whole snapshot")
    fetching.add_argument("--kind", default="ckpt", help="ckpt (the default), best, history")
    fetching.add_argument("--into", type=Path, default=Path(), help="local folder to put it in (default: this one)")
    publishing = add(push, "publish a local folder")
    publishing.add_argument("--from", dest="source", type=Path, required=True, help="the local folder")
    publishing.add_argument("--label", required=True, help="kind, epoch and step: ckpt-e0012-s004800")
    publishing.add_argument("--share", action="append", default=[], help="a file to be stored once for many snapshots")
    return parser


def _existing_store(folder: str) -> Store:
    store = Store(folder)
    if not store.reach.again(lambda: store.reach.disk.is_folder(store.folder)):
        raise FileNotFoundError(f"There is no folder {store.folder}. Give the run's folder, which holds snapshots such "
                                "as ckpt-e0012-s004800-a3f91c-g2")
    return store


def _standing(store: Store, found: dict[Snapshot, list[str]]) -> str:
    """What a session that starts now would go on from. `found` has every snapshot's problems, oldest first."""
    if not found:
        return f"Nothing is saved in {store.folder} yet."
    checkpoints = [snapshot for snapshot in found if snapshot.kind == "ckpt"]
    whole = [snapshot for snapshot in checkpoints if not found[snapshot]]
    if not whole:
        return ("There is no whole checkpoint to go on from" + (", though there are some" if checkpoints else "") + ".")
    newest = whole[-1]
    ago = duration(max(store.now() - store.reach.disk.changed(newest.path / MARKER), 0.0))
    skipped = len(checkpoints) - 1 - checkpoints.index(newest)
    newer = f" ({skipped} newer {'one is' if skipped == 1 else 'ones are'} not whole)" if skipped else ""
    return (f"The run can go on from epoch {newest.epoch}, step {newest.step}, saved {ago} ago{newer}; "
            f"{_UPLOADED[upload_state(store.reach, newest.files())]}.")


def _bytes(snapshot: Snapshot) -> int:
    """All its files together; 0 where it does not tell."""
    try:
        return sum(row.size for row in snapshot.rows())
    except SnapshotBroken:
        return 0


def _size_and_upload(snapshot: Snapshot) -> str:
    try:
        return f"{_bytes(snapshot) / 1e6:10.1f} MB  {upload_state(snapshot.reach, snapshot.files())}"
    except SnapshotBroken as problem:
        return str(problem)


def _complain(words: str) -> None:
    print(words, file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
