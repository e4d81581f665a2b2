"""The section ``[model_folders]`` of the config."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen


@frozen
class FolderSettings:
    """Where to look for models.

    :param paths: further folders.
    :param may_delete: whether models in ``paths`` may be deleted through LMX; those of other
        programs never are.
    :param home: the folder ``models`` in LMX's own folder.
    :param hugging_face: the cache that Hugging Face's tools download to.
    :param lm_studio: the folders that LM Studio downloads to.
    """

    paths: tuple[Path, ...] = ()
    may_delete: bool = False
    home: bool = True
    hugging_face: bool = True
    lm_studio: bool = True
