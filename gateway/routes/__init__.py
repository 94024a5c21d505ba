"""The addresses of the gateway, a module for each resource."""

from flask_openapi import APIBlueprint

from gateway.routes import health, login, models, prediction, ranking, training
from gateway.routes.documentation import documentation

BLUEPRINTS: tuple[APIBlueprint, ...] = (
    login.blueprint,
    training.blueprint,
    prediction.blueprint,
    ranking.blueprint,
    models.blueprint,
    health.blueprint,
)

__all__ = ["BLUEPRINTS", "documentation"]
