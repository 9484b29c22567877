"""Several processes or GPUs that train one network, through Hugging Face Accelerate.

Each process takes its share of the rows of every batch; gradients and losses are means over all rows. Batches, their
order and their size are those of one process, and so are weights and losses, up to the rounding of sums. Only dropout
and other draws differ: each process has its own. A loss that is no mean over rows is refused where the
first batch shows it, or the step says so: ``step.rowwise = False``, as where some rows are masked.

The first process alone validates, asks the monitor and callbacks, shows progress and saves; what it decides holds for
all. Callbacks may not change the network: the other processes would not see it. With ``Config(devices=2)`` it is the
calling one, which starts the others. ``torchrun`` and ``accelerate launch`` start all of them.
"""

from __future__ import annotations

import contextlib
import copy
import multiprocessing
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch.multiprocessing.spawn import ProcessException, start_processes
from tqdm import tqdm

from shared.train.batches import Batches, part
from shared.train.checkpoint import differences
from shared.train.settings import Common, TrainingError, resolve_device

ALONE = "train in one process (devices=1, without torchrun)"
LOST = re.compile("gloo|NCCL|TCPStore|onnection (closed|reset)|Broken pipe")  # what is said where a process is missing
_training = False  # what a callback trains on the way is its own process's affair


class OneProcess:
    """A process that trains alone."""

    rank = 0

    def batches(self, batches: Batches, epoch: int) -> Iterable[tuple]:
        """What this process trains on in an epoch."""
        return batches(epoch)

    def wrap(self, net: torch.nn.Module, step: Callable) -> Callable:
        """The step on a batch of :meth:`batches`."""
        return step

    def mean(self, numbers: dict) -> dict:
        """Means over the processes of the numbers of a step."""
        return numbers

    def first(self, make: Callable):
        """What `make` gives in the first process."""
        return make()

    def agree(self, about: Callable[[], dict]) -> None:
        """Refuse to train where what `about` gives differs between processes."""


class Processes(OneProcess):
    """This process on its device, as one of `world` that train together; `unused` parameters take no part in the loss.

    Raises
    ------
    TrainingError
        If Accelerate was set up for something else.
    """

    def __init__(self, world: int, device: torch.device, unused: bool):
        from accelerate import Accelerator, DistributedDataParallelKwargs

        how = [DistributedDataParallelKwargs(find_unused_parameters=unused)]
        self.accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision="no", kwargs_handlers=how)
        self.rank, self.world, self.device = self.accelerator.process_index, self.accelerator.num_processes, device
        if (self.world, self.accelerator.device.type) != (world, device.type):
            said = f"Accelerate was set up for {self.world} processes on {self.accelerator.device.type}"
            raise TrainingError(f"{said}, this run is for {world} on {device.type}: train in a process of its own")

    def batches(self, batches, epoch):
        """Shares of the batches; before each its weight, with which the mean over processes is that over rows."""
        weights = (len(part(n, self.rank, self.world)) * self.world / n for n in batches.sizes(epoch))
        return map(lambda weight, share: (weight, *share), weights, batches(epoch, self.rank, self.world))

    def wrap(self, net, step):
        return partial(_call, self.accelerator.prepare_model(_Step(net, step)))

    def mean(self, numbers):
        values = [torch.as_tensor(v, dtype=torch.float32, device=self.device) for v in numbers.values()]
        return dict(zip(numbers, self.accelerator.reduce(torch.stack(values), "mean").unbind(), strict=True))

    def first(self, make):
        from accelerate.utils import broadcast_object_list

        return broadcast_object_list([make() if self.rank == 0 else None])[0]

    def agree(self, about):
        from accelerate.utils import gather_object

        first, *others = gather_object([about()])
        differ = sorted({said for other in others for said in differences(first, other)})
        if differ:
            said = f"the processes were given different runs, which differ in {', '.join(differ[:5])}"
            raise TrainingError(f"{said}: fix the seed, and give every process the same data")


class _Step(torch.nn.Module):
    """A step as the ``forward`` of a module around the network: gradients of what goes past it are not averaged."""

    def __init__(self, net, step):
        super().__init__()
        self.net, self.held = net, (step,)  # in a tuple, or a step that is a module would become a part of this one

    def forward(self, weight, *batch):
        answer = self.held[0](self.net, *batch)
        loss, numbers = answer if isinstance(answer, tuple) else (answer, {})
        return loss * weight, {k: v * weight for k, v in numbers.items()}


def _call(module, net, *batch):
    return module(*batch)


def asked(config: Common) -> tuple[int, torch.device]:
    """How many processes train, and the device of this one.

    Raises
    ------
    TrainingError
        If another number was launched than ``config.devices``, there are too few GPUs, or Accelerate is missing.
    """
    device, launched = resolve_device(config.device), _launched()
    world = 1 if _training else max(launched, config.devices)
    if world == 1:
        return 1, device
    if launched > 1 < config.devices != launched:
        raise TrainingError(f"devices={config.devices}, and {launched} processes were launched: leave devices out")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world)) if launched > 1 else world
    if device.type != "cpu" and torch.cuda.device_count() < here:
        found = torch.cuda.device_count()
        raise TrainingError(f"{here} processes need a GPU each, and there are {found}: set device='cpu' or devices=1")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) if launched > 1 else 0)
    try:
        import accelerate  # noqa: F401
    except ImportError as error:
        said = 'several processes need Accelerate: pip install "borrowed-strength[distributed]"'
        raise TrainingError(f"{said}, or set devices=1") from error
    return world, device


def _launched():
    return int(os.environ.get("WORLD_SIZE", 1)) if "RANK" in os.environ else 1


def check_rows(net: torch.nn.Module, step: Callable, ask: Callable, batches: Batches) -> bool:
    """Refuse what several processes would train otherwise than one, by a look at the first batch.

    Parameters
    ----------
    net : torch.nn.Module
        Its buffers are left as they were.
    step : callable
        Its attribute ``rowwise`` says whether its loss is a mean over rows; without one this is measured.
    ask : callable
        Gives the loss, and numbers, of a batch.
    batches : Batches
        Of the run.

    Returns
    -------
    bool
        Whether parameters take no part in the loss.

    Raises
    ------
    TrainingError
        If the loss is no mean over rows, or the network collects statistics of its batches.
    """
    if not batches.rowwise or not getattr(step, "rowwise", True):
        raise TrainingError(f"this loss is no mean over the rows of a batch, which processes could share: {ALONE}")
    if batches.sizes(1) is None:
        raise TrainingError("processes share batches whose rows are known: give batches that have sizes(epoch)")
    whole, before = next(iter(batches(1))), [(k, v, v.clone()) for k, v in net.named_buffers()]
    parameters = [p for p in net.train().parameters() if p.requires_grad]
    used = torch.autograd.grad(ask(whole)[0], parameters, allow_unused=True)
    moved = [name for name, buffer, value in before if not torch.equal(buffer, value)]
    for _, buffer, value in before:
        buffer.copy_(value)
    if moved:
        said = f"{moved[0]} would be collected from a share of each batch, as by batch norm"
        raise TrainingError(f"{said}: use layer norm, or {ALONE}")
    if not hasattr(step, "rowwise"):
        net.eval()
        with torch.no_grad():
            n, loss = batches.sizes(1)[0], ask(whole)[0]
            mean = sum(len(part(n, half, 2)) / n * ask(next(iter(batches(1, half, 2))))[0] for half in (0, 1))
        if not torch.isclose(mean, loss, rtol=1e-5, atol=1e-7, equal_nan=True):
            said = f"the loss of a batch is {loss:.6g} and the mean over its halves {mean:.6g}: no mean over rows"
            raise TrainingError(
                f"{said}, so {ALONE}. If random draws alone differ, say step.rowwise = True in the module of the step"
            )
    return any(gradient is None for gradient in used)


@contextlib.contextmanager
def processes(world: int, device: torch.device, unused: bool, again: Callable, parts: dict) -> Iterator[OneProcess]:
    """The processes that train together, started here unless they were launched.

    Parameters
    ----------
    world, device, unused
        As :class:`Processes` takes them.
    again : callable
        ``again(**parts)`` trains the same in another process.
    parts : dict
        The network ``net``, and what else each process needs its own copy of.

    Raises
    ------
    TrainingError
        If a process cannot start, or ends before the training.
    """
    global _training
    if world == 1:
        yield OneProcess()
        return
    _training = True
    try:
        with contextlib.nullcontext() if _launched() > 1 else _started(world, device, again, parts) as others:
            try:
                yield Processes(world, device, unused)
            except RuntimeError as error:
                if not LOST.search(str(error)):
                    raise
                said = _end(others, 5) if others else "its own output says why"
                raise TrainingError(
                    f"a process ended before the training ({said}): run again, which goes on from the checkpoint where "
                    "there is one"
                ) from error
    finally:
        _training = False


@contextlib.contextmanager
def _started(world, device, again, parts):
    """Start the processes beside this one, which end with it."""
    from accelerate.state import AcceleratorState, PartialState

    threads, distributed = torch.get_num_threads(), torch.distributed
    if multiprocessing.current_process().daemon or multiprocessing.get_start_method(allow_none=True) == "loky":
        raise TrainingError("this process is one of several already (n_jobs, workers): set devices=1, or n_jobs=1")
    if PartialState._shared_state or distributed.is_initialized():
        raise TrainingError("this process is set up for other training already: start anew, or use torchrun")
    store = distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False, multi_tenant=True)
    env = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": str(world)}
    env |= {"OMP_NUM_THREADS": str(max(1, threads // world))}
    others = None
    try:
        try:
            parts = copy.deepcopy(parts)  # what is sent lies in memory that both processes see
            parts["net"].cpu()
            others = start_processes(_work, (env, device.type == "cpu", again, parts), world - 1, False, True)
        except Exception as error:
            said = f"devices={world} sends step, network and data to further processes, and not all can be sent"
            cure = "define them at the top level of a module, or start the script with torchrun"
            raise TrainingError(f"{said} ({error}): {cure}") from error
        while store.add("arrived", 0) < world - 1:  # who joins a group waits for all of it, however long
            if said := _end(others, 0.1):
                cure = "define step and network in a module, and call under 'if __name__ == \"__main__\":'"
                raise TrainingError(f"a further process could not start ({said}): {cure}")
        with _environment(env, 0):
            PartialState(cpu=device.type == "cpu")
        yield others
    finally:
        for other in others.processes if others else ():
            other.terminate()  # this process has all that was learned
            other.join()
        torch.set_num_threads(threads)
        if distributed.is_initialized():
            distributed.destroy_process_group()
        AcceleratorState._reset_state(reset_partial_state=True)


@contextlib.contextmanager
def _environment(env, rank):
    """Variables that say which process this is, and threads that share the cores, while a group of processes forms."""
    before = dict(os.environ)
    os.environ.update(env, RANK=str(rank), LOCAL_RANK=str(rank))
    torch.set_num_threads(int(env["OMP_NUM_THREADS"]))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _work(i, env, cpu, again, parts):
    """What a further process does."""
    from accelerate.state import PartialState

    parts = copy.deepcopy(parts)  # further processes get one memory, and each trains weights of its own
    tqdm.set_lock(threading.RLock())  # its own is a semaphore, which an ended process would leave behind
    with _environment(env, i + 1):
        port = int(env["MASTER_PORT"])
        torch.distributed.TCPStore(env["MASTER_ADDR"], port, is_master=False, wait_for_workers=False).add("arrived", 1)
        PartialState(cpu=cpu)
        again(**parts)


def _end(others, seconds):
    """How the first process to fail ended, in a line; empty where none has within so many seconds."""
    try:
        return "it left" if others.join(seconds) else ""
    except ProcessException as error:
        return str(error).strip().splitlines()[-1]
