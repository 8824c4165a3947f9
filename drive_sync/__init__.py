"""Durable folders on a mount that lies: write-once snapshots, published in the background, verified before use.

    drive = drive_sync.mount()                               # My Drive in Colab, a plain folder elsewhere
    store = drive_sync.Store(drive / "vaani" / "run-1")
    publisher = drive_sync.Publisher(store, spool="spool")
    publisher.submit("checkpoint", "ckpt-e0001-s000400")     # returns at once
    print(publisher.status().sentence())
    newest = store.latest("ckpt")                            # verified, or None; a dead mount raises DriveUnavailable
    drive_sync.finish(publisher)                             # waits until Drive has all of it, then unmounts

Standard library only.
"""
from drive_sync.colab import mount
from drive_sync.ending import finish
from drive_sync.errors import DriveUnavailable, LeaseHeld, LeaseLost, SnapshotBroken, SpoolInUse
from drive_sync.lease import Lease
from drive_sync.publisher import Publisher
from drive_sync.sign import Sign
from drive_sync.snapshot import Snapshot
from drive_sync.space import Space, check_space, machine_bytes, run_bytes
from drive_sync.status import State, Status
from drive_sync.store import Store

__all__ = ["DriveUnavailable", "Lease", "LeaseHeld", "LeaseLost", "Publisher", "Sign", "Snapshot", "SnapshotBroken",
           "Space", "SpoolInUse", "State", "Status", "Store", "check_space", "finish", "machine_bytes",
           "mount", "run_bytes"]
