"""Nothing writes through the view, not even root, not even where the kernel would let it."""

from __future__ import annotations

import errno
import inspect
import mmap
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyfuse3
import pytest

from fsview.counters import Counters
from fsview.operations import Operations
from fsview.view import View
from store.repository import Repository
from tests.fuse.conftest import Sample, run
from tests.trees import supports_xattrs

WRITES: dict[str, Callable[[Path], object]] = {
    "create": lambda top: (top / "new").touch(),
    "create exclusively": lambda top: os.close(os.open(top / "new", os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    "open to write": lambda top: (top / "README").open("r+b"),
    "open to truncate": lambda top: (top / "README").open("wb"),
    "append": lambda top: (top / "README").open("ab"),
    "truncate": lambda top: os.truncate(top / "README", 0),
    "chmod": lambda top: (top / "README").chmod(0o600),
    "chown": lambda top: os.chown(top / "README", 1, 1),
    "utimens": lambda top: os.utime(top / "README"),
    "unlink": lambda top: (top / "README").unlink(),
    "rename": lambda top: (top / "README").rename(top / "new"),
    "mkdir": lambda top: (top / "new").mkdir(),
    "rmdir": lambda top: (top / "no-entries").rmdir(),
    "symlink": lambda top: (top / "new").symlink_to("README"),
    "link": lambda top: os.link(top / "README", top / "new"),
    "mkfifo": lambda top: os.mkfifo(top / "new"),
    "setxattr": lambda top: os.setxattr(top / "README", "user.x", b"1"),
    "removexattr": lambda top: os.removexattr(top / "etc/noted", "user.note"),
    "chmod of the root": lambda top: top.chmod(0o700),
    "mkdir in refs": lambda top: (top.parents[1] / "refs/new").mkdir(),
    "unlink of a ref": lambda top: (top.parents[1] / "refs/rel/1").unlink(),
    "symlink in commits": lambda top: (top.parent / "new").symlink_to("x"),
    "rmdir of a commit": lambda top: top.rmdir(),
    "mkdir at the top": lambda top: (top.parents[1] / "new").mkdir(),
}


@pytest.mark.parametrize("what", WRITES)
def test_every_write_is_refused(sample: Sample, what: str) -> None:
    with pytest.raises(OSError) as caught:
        WRITES[what](sample.commit("rel/1"))
    assert caught.value.errno == errno.EROFS


REQUESTS = (
    "setattr", "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link", "create", "write", "setxattr",
    "removexattr",
)  # fmt: skip


@pytest.mark.parametrize("request_name", REQUESTS)
async def test_the_server_refuses_by_itself(request_name: str) -> None:
    """As if somebody had remounted it writable."""
    operations = Operations(None)
    handler = getattr(operations, request_name)
    arguments = [None] * (len(inspect.signature(getattr(pyfuse3.Operations, request_name)).parameters) - 1)
    with pytest.raises(pyfuse3.FUSEError) as caught:
        await handler(*arguments)
    assert caught.value.errno == errno.EROFS


async def test_the_server_refuses_to_open_for_writing(tmp_path: Path) -> None:
    operations = Operations(None)
    with Repository.create(tmp_path / "repo") as repository:
        operations.begin_work(View(repository, uid=0, gid=0, now_s=lambda: 0), Counters(1).row(0), lambda: None)
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC):
            with pytest.raises(pyfuse3.FUSEError) as caught:
                await operations.open(pyfuse3.InodeT(5), pyfuse3.FlagT(flags), pyfuse3.RequestContext())
            assert caught.value.errno == errno.EROFS


def test_files_can_be_mapped_and_run(sample: Sample) -> None:
    path = sample.ref("rel/1") / "data" / "large"
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[-9:] == b"00199999\n"[-9:] and mapped.find(b"00123456\n") == 123456 * 9
        assert len(mapped) == path.stat().st_size
    subprocess.run([sample.ref("rel/1") / "bin" / "tool"], check=True)


def test_extended_attributes_come_through(sample: Sample) -> None:
    if not supports_xattrs(sample.home):
        pytest.skip("no xattrs on this file system")
    noted = sample.ref("rel/1") / "etc" / "noted"
    assert sorted(os.listxattr(noted)) == ["user.bin", "user.note"]
    assert os.getxattr(noted, "user.bin") == b"\0\xff"
    assert os.getxattr(sample.ref("rel/1") / "noted", "user.note") == b"on a directory"
    for name in ("user.none", "security.selinux", "system.posix_acl_access"):
        with pytest.raises(OSError) as caught:
            os.getxattr(noted, name)
        assert caught.value.errno in (errno.ENODATA, errno.EOPNOTSUPP)
    assert os.listxattr(sample.point) == []
    run("ls", "-laR", sample.tree("rel/1"))


def test_the_view_is_full(sample: Sample) -> None:
    status = os.statvfs(sample.point)
    assert status.f_bfree == status.f_bavail == status.f_ffree == 0 < status.f_blocks
    assert status.f_namemax == 255 and status.f_flag & os.ST_RDONLY
    run("df", sample.point)
