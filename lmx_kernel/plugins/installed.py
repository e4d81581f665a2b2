"""What the metadata of an installed package says: when it came, and whether it is still there."""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from attrs import frozen
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from lmx_kernel import __version__
from lmx_kernel.plugins.package_folder import changed_at, folder_of

KERNEL = "lmx-kernel"  # the distribution; its extra `all` lists LMX's own plugins


@frozen
class Installed:
    """A package as it was when it was looked at.

    :ivar folder: of its metadata; None if that is in no folder.
    :ivar at: when it was installed, in seconds since the epoch; 0 if that is not known.
    """

    name: str
    version: str
    folder: Path | None
    at: float

    @classmethod
    def of(cls, package: Distribution) -> Installed:
        """Return what is known of a package."""
        folder, about = folder_of(package), package.metadata  # each look at it reads the file
        return cls(about["Name"], about["Version"], folder, changed_at(folder))

    @property
    def has_changed(self) -> bool:
        """Whether the package was removed, or installed anew, since. Takes microseconds."""
        return self.folder is not None and changed_at(self.folder) != self.at

    def version_now(self) -> str:
        """Return the version that is installed now; "" if it is not installed any more."""
        try:
            return distribution(self.name).version
        except PackageNotFoundError:
            return ""


def kernel_problem(package: Distribution) -> str:
    """Return why a package cannot be used with this kernel; "" if it can. pip checks that as well,
    unless it is told not to.
    """
    for text in package.requires or ():
        try:
            needed = Requirement(text)
        except InvalidRequirement:
            continue
        if canonicalize_name(needed.name) != KERNEL or (
            needed.marker and not needed.marker.evaluate({"extra": ""})
        ):
            continue
        if not needed.specifier.contains(__version__, prereleases=True):
            return f"it needs lmx-kernel{needed.specifier}, and this is {__version__}"
    return ""
