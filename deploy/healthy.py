"""Healthcheck of a container: exits with 0 when the address answers with 200.

python -I deploy/healthy.py http://127.0.0.1:5000/health
"""

import http.client
import sys
from urllib.parse import urlsplit

address = urlsplit(sys.argv[1])
connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=4)
try:
    connection.request("GET", address.path)
    sys.exit(connection.getresponse().status != 200)
except (OSError, http.client.HTTPException) as error:
    sys.exit(f"{sys.argv[1]}: {error}")
