"""gunicorn's configuration: `gunicorn --config gateway/gunicorn.conf.py 'gateway:create_app()'`.

Read in the master process, before the application is, and again at SIGHUP: what is wrong with the
settings is said here, once.
"""

import shutil
import threading
from typing import Any

from gateway.starting import start_or_reload

# imports the application before the workers are forked, which then share it and start at once
_settings = start_or_reload()
_figures = _settings.metrics_dir

from gateway.worker import worker_for  # noqa: E402

bind = _settings.bind
workers = _settings.workers
threads = _settings.threads
worker_class = worker_for(_settings)
# the heartbeat of a threaded worker comes from its main loop, not from its requests
timeout = 30
graceful_timeout = 30
keepalive = 75
accesslog = None
loglevel = "warning"
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
# gunicorn is told what to do by signals; two gateways of one user would share that socket
control_socket_disable = True
# X-Forwarded-* is the application's business (GATEWAY_TRUSTED_PROXIES)
forwarded_allow_ips = ""


def when_ready(server: Any) -> None:
    """A new start begins its figures anew: once the address is its own, and not before, or a second
    start by mistake would empty those of the first."""
    shutil.rmtree(_figures, ignore_errors=True)
    _figures.mkdir(mode=0o700)


def post_worker_init(worker: Any) -> None:
    """The first worker sees to trainings that died while the gateway was away, one that comes later
    to that which is under way: the worker that began it may have gone."""
    from gateway.recovery import await_end, reconcile_until_done

    see_to = reconcile_until_done if worker.age == 1 else await_end
    threading.Thread(target=see_to, args=(worker.wsgi,), daemon=True).start()
