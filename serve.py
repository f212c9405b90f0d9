"""The web process: `python serve.py` is gunicorn, with one check that has to come before it.

gunicorn reads WEB_CONCURRENCY as soon as it is imported, and ends in a traceback where that is no number.
"""

import os

from config import Config, ConfigError

if __name__ == "__main__":
    try:
        Config.from_environment(os.environ | {"SERVER_SOFTWARE": "gunicorn"})
    except ConfigError as error:
        raise SystemExit(f"pat-service: {error}") from None

    from gunicorn.app.wsgiapp import run

    run(prog="gunicorn")
