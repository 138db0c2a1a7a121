"""The contract of the yard: what every implementation of `services.api.YardService`, on every database, must do.

A test module makes a class for each that it has::

    class TestSomething(YardContract):
        @pytest.fixture
        def stage(self) -> Iterator[Stage]:
            stage = Stage(open_it, dump, remote=False)
            yield stage
            stage.close()
"""

from __future__ import annotations

import pytest

from runyard.testing.contract_disk import DiskContract
from runyard.testing.contract_ends import EndsContract
from runyard.testing.contract_files import FilesContract
from runyard.testing.contract_lease import LeaseContract
from runyard.testing.contract_own import OwnContract
from runyard.testing.contract_params import ParamsContract
from runyard.testing.contract_queue import QueueContract
from runyard.testing.contract_records import RecordsContract
from runyard.testing.contract_search import SearchContract
from runyard.testing.contract_submit import SubmitContract
from runyard.testing.contract_summaries import SummariesContract
from runyard.testing.contract_tracking import TrackingContract
from runyard.testing.stage import Stage


class YardContract(
    SubmitContract,
    QueueContract,
    EndsContract,
    LeaseContract,
    RecordsContract,
    SearchContract,
    FilesContract,
    DiskContract,
    TrackingContract,
    ParamsContract,
    OwnContract,
    SummariesContract,
):
    """Everything. Subclasses give the fixture ``stage``."""

    @pytest.fixture
    def stage(self) -> Stage:
        raise NotImplementedError("a subclass gives the stage to play on")
