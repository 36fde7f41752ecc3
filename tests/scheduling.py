"""Which process runs which tests, where several do.

What the tests of a package share, such as a running Mercat, is started in each process that runs some of them, and
ends when that goes on to another package. So a process stays with a package; the next it turns to is the one that has
most left for each process at it, where that is more than a file, and what shares nothing fills the gaps."""

from collections import Counter, defaultdict
from pathlib import PurePath
from typing import Any

from xdist.scheduler import LoadScopeScheduling


class ByPackage(LoadScopeScheduling):
    """Gives out whole files."""

    def __init__(self, config: Any, log: Any = None) -> None:
        super().__init__(config, log)
        self._root = config.rootpath
        self._at: dict[Any, str] = {}  # the package of each process

    def _split_scope(self, nodeid: str) -> str:
        return nodeid.partition("::")[0]

    def _assign_work_unit(self, node: Any) -> None:
        left = defaultdict(list)
        for file in self.workqueue:
            left[self._package(file)].append(file)
        package = self._at.get(node, "")
        if package not in left or not package:
            others = Counter(at for other, at in self._at.items() if other in self.assigned_work and other != node)
            share = {name: len(files) / (1 + others[name]) for name, files in left.items()}
            worth = {name for name in left if name and (not others[name] or share[name] > 1)}
            package = max(left, key=lambda name: (name in worth, not name, share[name]))
        self._at[node] = package
        self.workqueue.move_to_end(left[package][0], last=False)
        super()._assign_work_unit(node)

    def _package(self, file: str) -> str:
        """The innermost package of a file; empty: none."""
        folders = PurePath(file).parents
        return next((str(folder) for folder in folders if (self._root / folder / "__init__.py").exists()), "")
