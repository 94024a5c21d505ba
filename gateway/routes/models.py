"""/models: the versions in the registry, and which of them is in production."""

from datetime import UTC, datetime
from typing import Any

from flask import Response, g
from flask_openapi import APIBlueprint
from flask_openapi.models import RequestBody

from gateway.access import SECURITY, requires
from gateway.errors import Problem
from gateway.openapi import problems
from gateway.schemas import Models, ModelVersion, Promoted, Promotion, VersionPath
from gateway.services import audit_outcome, audited, services
from gateway.state import exclusive
from gateway.upstream import MissingError, TrackingServer

blueprint = APIBlueprint("models", __name__, abp_security=SECURITY)

MODEL, PRODUCTION = "jobmatch", "production"
HEADLINES = (
    "hire_auc", "hire_average_precision", "hire_brier", "hire_ece", "hire_f1",
    "pool_auc", "pool_recall_at_10", "pool_recall_at_50", "pool_mrr",
)  # fmt: skip
_TAGS = (
    "gate", "gate_reason", "promoted_by", "promoted_at", "replaced_version", "forced",
    "serving_since", "refused_because",
)  # fmt: skip


@blueprint.get(
    "/models",
    summary="Versions, aliases and headline figures",
    responses={200: Models, **problems(401, 403, 502, 503, 504)},
)
@requires("recruiter")
def listing() -> Response:
    """The hundred newest versions of the registered model."""
    tracking = services().tracking
    aliases = _aliases(tracking)
    found = tracking.get(
        "model-versions/search", filter=f"name='{MODEL}'", max_results=100,
        order_by=["version_number DESC"],
    ).get("model_versions", [])  # fmt: skip
    metrics = _metrics(tracking, [v["run_id"] for v in found if v.get("run_id")])
    answer = Models(
        name=MODEL,
        aliases=aliases,
        versions=[_version(v, aliases, metrics.get(v.get("run_id", ""), {})) for v in found],
    )
    return Response(answer.model_dump_json(exclude_none=True), content_type="application/json")


@blueprint.post(
    "/models/<version>/promote",
    summary="Put a version into production",
    request_body=RequestBody.model_validate(
        {
            "required": False,
            "content": {
                "application/json": {
                    "schema": {"$ref": f"#/components/schemas/{Promotion.__name__}"}
                }
            },
        }
    ),
    responses={200: Promoted, **problems(400, 401, 403, 404, 409, 413, 415, 422, 502, 503, 504)},
)
@requires("admin")
def promote(path: VersionPath, body: Promotion) -> Response:
    """Moves the alias `production`, as the registry's screen does, and records who did.

    For the version that is in production already nothing is done: the answer is what the registry
    has recorded of its promotion.
    """
    # one after the other on this machine, or two would say that they replaced the same version
    with exclusive(services().settings.state_dir / "promotion.lock"):
        answer = _promoted(path, body)
    return Response(answer.model_dump_json(), content_type="application/json")


def _promoted(path: VersionPath, body: Promotion) -> Promoted:
    tracking = services().tracking
    number = str(path.version)
    try:
        version = tracking.get("model-versions/get", name=MODEL, version=number)["model_version"]
    except MissingError:
        raise _refused(
            path.version, Problem("not-found", f"there is no version {number}: see /models")
        ) from None
    replaced = _aliases(tracking).get(PRODUCTION)
    if replaced == path.version:
        return _promoted_before(path.version, _tags(version))
    forced = _tags(version).get("gate") == "failed"
    if forced and not body.force:
        raise _refused(path.version, Problem(
            "conflict",
            f'version {number} failed its gate: promote it all the same with {{"force": true}}'))
    new = Promoted(
        version=path.version, replaced_version=replaced, promoted_by=g.user.username,
        promoted_at=datetime.now(UTC).isoformat(timespec="microseconds"), forced=forced,
    )  # fmt: skip
    try:
        _promote(tracking, new)
    except MissingError:
        raise Problem("not-found", f"version {number} was deleted meanwhile: see /models") from None
    return new


def _refused(version: int, problem: Problem) -> Problem:
    """The problem, of which the audit log now knows."""
    audit_outcome("promotion", action="refused", reason=problem.kind, model_version=version)
    return problem


def _promoted_before(number: int, tags: dict[str, str]) -> Promoted:
    """What the registry says of the version that is in production already."""
    replaced = tags.get("replaced_version", "")
    return Promoted(
        version=number, replaced_version=int(replaced) if replaced.isdecimal() else None,
        promoted_by=tags.get("promoted_by"), promoted_at=tags.get("promoted_at"),
        forced=tags.get("forced") == "true",
    )  # fmt: skip


def _promote(tracking: TrackingServer, new: Promoted) -> None:
    facts = {
        "model_version": new.version, "replaced_version": new.replaced_version,
        "forced": new.forced,
    }  # fmt: skip
    number = str(new.version)
    with audited("promotion", "requested", **facts):
        # the record is written first: an alias without one must not exist; the moment, by which
        # the last record is known, comes last of it
        for key, value in {
            "promoted_by": new.promoted_by,
            "replaced_version": str(new.replaced_version or "none"),
            "forced": str(new.forced).lower(),
            "undo": "false",
            "promoted_at": new.promoted_at,
        }.items():
            tracking.post(
                "model-versions/set-tag", name=MODEL, version=number, key=key, value=value
            )
        try:
            tracking.post("registered-models/alias", name=MODEL, alias=PRODUCTION, version=number)
        except Problem:  # a slow registry may have moved it all the same
            if _aliases(tracking).get(PRODUCTION) != new.version:
                raise
    audit_outcome("promotion", action="promoted", **facts)


def _aliases(tracking: TrackingServer) -> dict[str, int]:
    """The aliases; none when nothing was ever registered."""
    try:
        model = tracking.get("registered-models/get", name=MODEL)["registered_model"]
    except MissingError:
        return {}
    return {alias["alias"]: int(alias["version"]) for alias in model.get("aliases", [])}


def _metrics(tracking: TrackingServer, run_ids: list[str]) -> dict[str, dict[str, float]]:
    """Headline figures by run."""
    if not run_ids:
        return {}
    listed = ", ".join(f"'{run_id}'" for run_id in run_ids)
    # whoever trained from the command line may have done so in any experiment
    experiments = tracking.pages("POST", "experiments/search", "experiments", max_results=1000)
    runs = tracking.post(
        "runs/search", experiment_ids=[found["experiment_id"] for found in experiments],
        filter=f"attributes.run_id IN ({listed})", max_results=len(run_ids),
    ).get("runs", [])  # fmt: skip
    return {
        run["info"]["run_id"]: {
            metric["key"]: metric["value"]
            for metric in run["data"].get("metrics", [])
            if metric["key"] in HEADLINES and isinstance(metric["value"], int | float)
        }
        for run in runs
    }


def _tags(version: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in version.get("tags", [])}


def _version(
    version: dict[str, Any], aliases: dict[str, int], metrics: dict[str, float]
) -> ModelVersion:
    number, tags = int(version["version"]), _tags(version)
    return ModelVersion(
        version=number,
        created=datetime.fromtimestamp(int(version["creation_timestamp"]) / 1000, UTC),
        aliases=sorted(alias for alias, at in aliases.items() if at == number),
        run_id=version.get("run_id") or None,
        metrics=metrics,
        **{key: tags[key] for key in _TAGS if key in tags},
    )
