"""The reference: a threaded handler that runs the guestbook's query with PyMySQL and json.dumps."""

from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pymysql

QUERY = """
SELECT id, username, message, timestamp,
       (SELECT COALESCE(SUM(total), 0) FROM message_count) AS total
FROM message ORDER BY id LIMIT 20 OFFSET 0
"""

local = threading.local()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        if not hasattr(local, "connection"):
            local.connection = pymysql.connect(
                host="127.0.0.1",
                port=int(os.environ["DATABASE_PORT"]),
                user="root",
                database="guestbook",
                autocommit=True,
            )
        with local.connection.cursor() as cursor:
            cursor.execute(QUERY)
            rows = cursor.fetchall()
        messages = [
            {"id": id, "username": username, "message": message, "timestamp": moment.isoformat()}
            for id, username, message, moment, _ in rows
        ]
        body = json.dumps({"messages": messages, "total": int(rows[0][4])}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    address = f"http://127.0.0.1:{server.server_port}/"
    print(f"minimal is ready on {address}, management on {address}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()


if __name__ == "__main__":
    main()
