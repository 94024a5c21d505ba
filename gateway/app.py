"""The application: its parts, put together."""

from flask import Flask
from flask_openapi import OpenAPI
from werkzeug.middleware.proxy_fix import ProxyFix

from gateway import access, cli, errors, keys, limiting, logs, openapi, schemas, state
from gateway.audit import Audit
from gateway.body import JsonRequest, discard_rest
from gateway.metrics import Metrics
from gateway.routes import BLUEPRINTS, documentation
from gateway.services import EXTENSION, Services
from gateway.settings import Settings, SettingsError
from gateway.tokens import Tokens
from gateway.training import Trainings
from gateway.upstream import ModelServer, TrackingServer
from gateway.users import Users


class _App(OpenAPI):
    request_class = JsonRequest

    def generate_spec_json(self) -> None:
        super().generate_spec_json()
        settings = self.extensions[EXTENSION].settings
        openapi.complete(self.spec_json, metrics_token=bool(settings.metrics_token))


def build(settings: Settings) -> Flask:
    """The application, with everything prepared that it needs. Raises SettingsError for a fault in
    the settings."""
    return assemble(settings, prepare(settings))


def assemble(settings: Settings, signing: tuple[keys.Key, ...]) -> Flask:
    """The application, where everything is prepared and has given these keys."""
    app = _App(
        "gateway",
        info=openapi.INFO,
        security_schemes=openapi.SECURITY_SCHEMES,
        # it would add an answer of its own shape to views without this one; every view has a 500
        validation_error_status=500,
        validation_error_model=schemas.ProblemDetails,
        validation_error_callback=lambda error: errors.answer(errors.from_validation(error)),
        doc_ui=False,
        static_folder=None,
    )
    app.openapi_version = openapi.VERSION
    app.url_map.merge_slashes = False  # or it would redirect to whatever Host a caller names
    app.config["MAX_CONTENT_LENGTH"] = schemas.MAXIMUM_BODY_BYTES
    # whatever a view might raise becomes a problem, also while testing
    app.config["PROPAGATE_EXCEPTIONS"] = False
    if settings.trusted_proxies:
        hops = settings.trusted_proxies
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=0)  # type: ignore[method-assign]

    services = _services(settings, signing)
    app.extensions[EXTENSION] = services
    logs.configure()
    logs.register(app, services.metrics)
    app.after_request(discard_rest)
    access.register(app, between=services.limiter.init_app)
    errors.register(app)
    for blueprint in BLUEPRINTS:
        app.register_api(blueprint)
    app.register_blueprint(documentation)
    for schema in (schemas.TrainingStarted, schemas.TrainingParameters, schemas.Promotion):
        app.components_schemas.update(openapi.component(schema))
    services.limiter.exempt(app.view_functions["health.health"])
    cli.register(app)
    return app


def prepare(settings: Settings) -> tuple[keys.Key, ...]:
    """What a start needs: the state directory, the users' table and a first administrator, and
    the keys of tokens, which it returns.

    Done again and again without harm. Raises SettingsError when something is missing or wrong.
    """
    ours = {"users.db": settings.database_url, "limits.db": settings.limits_url}
    try:
        state.prepare(
            settings.state_dir, private=[name for name, elsewhere in ours.items() if not elsewhere]
        )
        found = keys.load(settings)
        cli.first_start(settings)
    except OSError as error:
        raise SettingsError(f"GATEWAY_STATE_DIR: {error.filename or settings.state_dir}: "
                            f"{error.strerror or error}") from error
    return found


def _services(settings: Settings, signing: tuple[keys.Key, ...]) -> Services:
    users = Users(settings.users_url)
    metrics = Metrics()
    tracking = TrackingServer(settings)
    return Services(
        settings=settings,
        users=users,
        tokens=Tokens(settings, signing),
        limiter=limiting.build(settings),
        model=ModelServer(settings),
        tracking=tracking,
        trainings=Trainings(
            settings, tracking, lambda outcome: metrics.trainings.labels(outcome).inc()
        ),
        audit=Audit(settings.state_dir),
        metrics=metrics,
    )
