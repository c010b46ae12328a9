import copy
import inspect

import torch

from rainfusion_core.progress import LoopPosition, SchedulerWatch


class Scheduler:
    timesteps = torch.tensor([3.0, 2.0, 1.0])

    def set_timesteps(self, number):
        return number

    def step(self, value):
        return value + 1


class Pipeline:
    scheduler = Scheduler()


def test_a_watched_scheduler_returns_what_it_returned_and_counts():
    scheduler, seen = Scheduler(), []
    watch = SchedulerWatch(scheduler, lambda: seen.append("begin"), lambda: seen.append("step"))
    assert scheduler.set_timesteps(3) == 3 and scheduler.step(1) == 2 and scheduler.step(1) == 2
    assert (watch.step, watch.steps, seen) == (2, 3, ["begin", "step", "step"])
    scheduler.set_timesteps(3)
    assert watch.step == 0


def test_removing_a_watch_leaves_the_instance_as_it_was():
    scheduler = Scheduler()
    outer = SchedulerWatch(scheduler)
    inner = SchedulerWatch(scheduler)
    inner.remove()
    scheduler.step(1)
    assert (outer.step, inner.step) == (1, 0)
    outer.remove()
    assert scheduler.__dict__ == {}


def test_a_watched_scheduler_keeps_its_signatures_because_diffusers_reads_them():
    scheduler = Scheduler()
    SchedulerWatch(scheduler)
    for name in ("set_timesteps", "step"):
        ours, original = getattr(scheduler, name), getattr(Scheduler(), name)
        assert inspect.signature(ours) == inspect.signature(original)


class Counter(Scheduler):
    calls = 0

    def step(self, value):
        self.calls += 1
        return value


def test_a_copy_of_a_watched_scheduler_steps_for_itself():
    scheduler = Counter()
    watches = SchedulerWatch(scheduler), SchedulerWatch(scheduler)
    twin = copy.deepcopy(scheduler)
    twin.step(1)
    assert (scheduler.calls, twin.calls) == (0, 1)
    assert [(watch.step, watch.copied) for watch in watches] == [(0, True), (0, True)]
    scheduler.set_timesteps(3)
    assert not watches[0].copied and not watches[1].copied


def test_where_copies_of_the_scheduler_step_the_pipeline_tells_the_timestep():
    pipeline = Pipeline()
    pipeline.scheduler = Scheduler()
    position = LoopPosition(torch.nn.Linear(1, 1), pipeline)
    copy.deepcopy(pipeline.scheduler)
    pipeline._num_timesteps, seen = 4, []
    # a timestep a frame: the second frame follows the first by one step
    for timestep in ([9, 9], [5, 9], [1, 5], [0, 1]):
        pipeline._current_timestep = torch.tensor(timestep)
        seen.append(position.at({"timestep": torch.tensor(timestep)[None]})[:2])
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4)]


def test_the_scheduler_tells_the_step_where_the_pipeline_says_nothing():
    pipeline = Pipeline()
    pipeline.scheduler = Scheduler()
    position = LoopPosition(torch.nn.Linear(1, 1), pipeline)
    pipeline.scheduler.set_timesteps(3)
    assert position.at({}) == (0, 3, "cond")
    assert position.at({}) == (0, 3, "uncond")
    pipeline.scheduler.step(1)
    assert position.at({}) == (1, 3, "cond")


def test_a_scheduler_that_is_swapped_after_install_is_followed():
    pipeline = Pipeline()
    pipeline.scheduler = old = Scheduler()
    position = LoopPosition(torch.nn.Linear(1, 1), pipeline)
    pipeline.scheduler = new = Scheduler()
    position.at({})
    new.step(1)
    assert position.at({})[0] == 1
    position.remove()
    assert old.__dict__ == new.__dict__ == {}


def test_timesteps_alone_tell_steps_and_new_runs():
    position = LoopPosition(torch.nn.Linear(1, 1))
    seen = [position.at({"timestep": torch.tensor([t])})[0] for t in (9, 9, 5, 5, 1, 9, 5)]
    assert seen == [0, 0, 1, 1, 2, 0, 1]
