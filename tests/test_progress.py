"""Progress bars count the tasks of whatever Dask computes on, and show them where the user looks."""

import time

import dask
import distributed
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

import psana_dask
from psana_dask import progress
from psana_dask.progress import ClientTasks, ComputeProgress, NotebookBar, TerminalBar, bar_for_here


class Record:
    """A bar that remembers."""

    def __init__(self, label):
        self.label, self.numbers, self.running = label, [], []

    def start(self):
        self.running.append(True)

    def update(self, done, total):
        self.numbers.append((done, total))

    def stop(self):
        self.running.append(False)


@pytest.fixture
def bars(monkeypatch):
    made = []
    monkeypatch.setattr(progress, "bar_for_here", lambda label: made.append(Record(label)) or made[-1])
    return made


def total(count):
    return dask.delayed(sum)([dask.delayed(abs)(-k) for k in range(count)])


def check(bar, count):
    done, totals = zip(*bar.numbers, strict=True)
    assert list(done) == sorted(done)
    assert (done[-1], totals[-1]) == (count, count)
    assert bar.running == [True, False]


@pytest.mark.parametrize("scheduler", ["threads", "synchronous"])
def test_tasks_of_local_schedulers_are_counted(bars, scheduler):
    with ComputeProgress("sums"), dask.config.set(scheduler=scheduler):
        assert total(10).compute() == 45
        assert total(20).compute() == 190
    assert bars[0].label == "sums"
    check(bars[0], 11 + 21)
    before = list(bars[0].numbers)
    total(5).compute(scheduler="synchronous")
    assert bars[0].numbers == before  # counts only inside


@pytest.fixture(scope="module")
def client():
    with distributed.Client(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as c:
        yield c


def test_tasks_of_a_client_are_counted(bars, client):
    with psana_dask.progress_bar():
        assert total(10).compute() == 45
        assert client.compute(total(20)).result() == 190
    check(bars[0], 11 + 21)
    plugins = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.plugins))
    assert not [name for name in plugins if "progress" in name]


def test_an_error_ends_the_bar_and_is_raised(bars, client):
    with pytest.raises(ZeroDivisionError), ComputeProgress("fails"):
        dask.delayed(divmod)(1, 0).compute()
    check(bars[0], 1)


def test_other_clients_do_not_count(bars, client):
    with distributed.Client(client.scheduler.address, set_as_default=False) as other:
        record = Record("")
        tasks = ClientTasks(client, record.update)
        tasks.start()
        assert other.submit(sum, [1, 2]).result() == 3
        tasks.stop()
    assert record.numbers == []


def test_a_patient_bar_is_shown_when_it_takes_long(bars):
    with ComputeProgress("quick", after=60):
        total(10).compute()
    assert (bars[0].numbers, bars[0].running) == ([], [])
    with ComputeProgress("slow", after=0.5):  # tasks take a second together, and begin before on any machine
        dask.delayed(sum)([dask.delayed(slow)(k) for k in range(10)]).compute(scheduler="synchronous")
    check(bars[1], 11)
    assert bars[1].numbers[0][0] > 0


def slow(number):
    time.sleep(0.1)
    return number


@pytest.fixture
def notebook():
    shell = InteractiveShell.instance()
    shell.kernel = object()  # what the shell of a notebook has
    yield shell
    InteractiveShell.clear_instance()


def test_a_notebook_gets_a_bar_of_its_own(notebook):
    with capture_output() as shown:
        bar = bar_for_here("<mean>")
        assert isinstance(bar, NotebookBar)
        bar.start()
        bar.update(3, 8)
        bar.update(8, 8)  # too soon to be shown
        bar.stop()
    texts = [output.data["text/html"] for output in shown.outputs]
    assert [("&lt;mean&gt;" in text, text.count("<progress")) for text in texts] == [(True, 1)] * len(texts)
    assert "3/8 tasks" in texts[1]
    assert "8/8 tasks" in texts[-1]
    assert len(texts) == 3


def test_a_terminal_gets_a_bar_on_stderr(capsys):
    bar = bar_for_here("mean")
    assert isinstance(bar, TerminalBar)
    bar.start()
    bar.update(3, 8)
    bar.stop()
    assert "3/8" in capsys.readouterr().err
