"""The served model: a supervisor that follows the registry, and the application its workers run.

    python -m serving          the supervisor: settings → Supervisor → one uvicorn with its workers
    supervisor.py              keeps the server up, ends everything on a signal
    follower.py                follows the alias `production`: fetch, check, swap, verify, roll back
    registry.py                what is read from and written to MLflow
    check.py                   loads a version in a process of its own and makes it answer
    state.py                   the state directory: versions, link, status, lock
    server.py, workers.py      uvicorn and its workers
    app.py                     the ASGI application
    scoring.py, formats.py     a loaded model; MLflow's request formats in, JSON out

No module here imports jobmatch_pyfunc into a process that loads a model: a model brings its own.
"""
