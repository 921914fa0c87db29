"""What a user may leave to the tool: which student, and which method. Each is chosen once, by what is there."""

from __future__ import annotations

from collections.abc import Collection

from compressor.config import DistillConfig
from compressor.deploy.expected_latency import expected_precision, latency_source
from compressor.errors import UsageFault
from compressor.inputs.pixels import Images
from compressor.inputs.settle import provisional_card
from compressor.inputs.teacher import Teacher, load_teacher
from compressor.method_choice import AUTO_METHOD, Choice, SituationFacts, choose_method, relatedness
from compressor.method_sheet import check_method
from compressor.methods import check_parts
from compressor.pipeline.run import Run, student_limits, teacher_source
from compressor.report.student_search import StudentSearch as SearchRecord
from compressor.report.student_search import search_record
from compressor.stage_files import read_facts
from compressor.stages import Choices, recorded_fingerprint
from compressor.students.named import check_named_student
from compressor.students.search import StudentLimits, StudentSearch, search_student
from compressor.students.specification import AUTO, build_backbone, check_layers
from compressor.students.student import Backbone
from compressor.tasks import ask_teacher
from profiles.schema import Budget


def search_for_student(run: Run, teacher: Teacher) -> StudentSearch:
    """What `--student auto` means for this teacher, target and limits. It looks at no image, so a plan can ask too.

    Raises:
        NoStudentFits: no candidate holds the user's limits.
    """
    config, target = run.config, run.target
    own, wishes = config.limits, target.budget or Budget()
    precision = expected_precision(target, config.precision.precisions)
    timed = not target.this_host or own.max_latency_ms is not None  # measuring takes seconds for each candidate
    return search_student(
        teacher,
        limits=student_limits(config),
        wishes=StudentLimits(wishes.max_latency_ms, wishes.max_size_mib, wishes.max_params_m),
        memory_gib=target.memory_gib.value if target.memory_gib else None,
        channel_multiple=target.channel_multiple,
        precision=precision,
        latency_of=latency_source(target, precision, anchors=run.anchors()) if timed else None,
        opset_ceiling=run.opset_ceiling(),
        seed=config.seed,
        note=run.reporter.note,
    )


def check_what_is_asked(run: Run, teacher: Teacher) -> None:
    """Refuse, as soon as the teacher is known, a method or a student that needs more of it than it gives.

    Raises:
        InputRefused: names those that work with this teacher.
    """
    if run.config.distill.method != AUTO_METHOD:
        check_parts(run.config.distill.method, teacher)
    check_layers(run.config.student.spec, teacher)


def check_the_named_student(run: Run, teacher: Teacher, backbone: Backbone) -> None:
    """Refuse before hours of training what can be counted now."""
    config, target = run.config, run.target
    check_named_student(
        config.student.spec,
        backbone,
        teacher,
        limits=student_limits(config),
        memory_gib=target.memory_gib.value if target.memory_gib else None,
        precisions=config.precision.precisions or target.precisions,
    )


def planned_search(run: Run, finished: Collection[str]) -> SearchRecord | None:
    """The search that a run has made or would make, as its report says it; None where the user names the student.

    Args:
        finished: the stages whose files are there and fit.

    Raises:
        InputRefused: no candidate holds the limits, or the student that was named does not.
    """
    spec, automatic = run.config.student.spec, run.config.student.spec == AUTO
    if "student" in finished:
        return search_record(read_facts(run.path("student"))["search"]) if automatic else None
    if "teacher" in finished:
        teacher = run.teacher()
    else:
        source = teacher_source(run)
        teacher = load_teacher(source.state_dict, provisional_card(source)).to(run.device)
        check_what_is_asked(run, teacher)
    if not automatic:
        multiple, seed = run.target.channel_multiple, run.config.seed
        check_the_named_student(run, teacher, build_backbone(spec, teacher, channel_multiple=multiple, seed=seed))
        return None
    return search_record(search_for_student(run, teacher).to_dict())


def method_for(run: Run, teacher: Teacher, few: Images, pool: Images, backbone: Backbone) -> Choice:
    """The method that the user names, or the one that fits what is there; chosen once, and kept when a run resumes."""
    config, card = run.config.distill, teacher.card
    if config.method != AUTO_METHOD:
        return Choice(config.method, "as asked")

    def choose() -> list[str]:
        related = None
        if len(pool) and teacher.task == "classification":
            related = relatedness(ask_teacher(run.task(), teacher, pool, run.device).answers)
        facts = SituationFacts(
            task=teacher.task,
            num_classes=card.num_classes,
            num_few=len(few),
            num_pool=len(pool),
            relatedness=related,
            has_batch_norm="batch_norm" in teacher.gives,
            image_side=max(card.input_shape[1:]),
            effort=config.effort,
            same_layout=backbone.pruned and teacher.classifies_its_map,
            gives=teacher.gives,
        )
        choice = choose_method(facts)
        return [choice.method, choice.reason]

    # What else the choice depends on is in these two stages.
    made_from = ", ".join(str(recorded_fingerprint(run.path(stage)))[:12] for stage in ("samples", "student"))
    return Choice(*Choices(run.config.out).remember(f"method at {config.effort} for {made_from}", choose))


def check_options(config: DistillConfig, choice: Choice) -> None:
    """The user's options against the method that was chosen; of one that was named, `prepare` has checked them."""
    try:
        check_method(choice.method, config.options)
    except UsageFault as fault:
        raise UsageFault(
            f"{fault.received} --method auto chose it: {choice.reason}.",
            fault.expected,
            "Name with --method the method that the options are meant for, or leave the options out.",
        ) from fault
