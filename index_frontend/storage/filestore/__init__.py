"""The embedded default: plain files by their sha256, in one folder that any number of worker processes share.

files/ab/cd/<sha256>    complete, verified, read-only
nodes/<cid>            the inner nodes of files of more than one leaf; made anew when they are lost
pins/<sha256>          what may never be evicted; the pin's name
damaged/<sha256>.<cid> a file that rotted, out of service, until it is repaired
tmp/<sha256>.part       one on its way in; `<sha256>.lock` says whose, and how long it will be
index.sqlite            what is known of the files, and what the bot has not been told yet; may be thrown away at any time
"""

from index_frontend.storage.filestore.limits import Limits
from index_frontend.storage.filestore.opening import open_filestore
from index_frontend.storage.filestore.scrub import Scrub
from index_frontend.storage.filestore.store import FileStore

__all__ = ["FileStore", "Limits", "Scrub", "open_filestore"]
