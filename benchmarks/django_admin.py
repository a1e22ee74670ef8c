"""django-auditlog over SQLite, in an environment of its own: answers each `{"q": …}` by its admin's search.

Run as `python -m benchmarks.django_admin FOLDER LINES`; the database is made from the lines once.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer until the input ends."""
    import django
    from django.conf import settings

    folder, lines = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(exist_ok=True)
    base = "django.contrib"
    settings.configure(
        SECRET_KEY="benchmarks", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, USE_TZ=True, STATIC_URL="/static/",
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "django.db")}},
        INSTALLED_APPS=[
            *(f"{base}.{app}" for app in ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")),
            "auditlog",
        ],
        MIDDLEWARE=[
            f"{base}.sessions.middleware.SessionMiddleware", f"{base}.auth.middleware.AuthenticationMiddleware",
            f"{base}.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[{
            "BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True,
            "OPTIONS": {"context_processors": [
                "django.template.context_processors.request", f"{base}.auth.context_processors.auth",
                f"{base}.messages.context_processors.messages",
            ]},
        }],
    )  # fmt: skip
    django.setup()
    fill(lines, folder / ".ready")

    from auditlog.models import LogEntry
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.force_login(User.objects.get(username="admin"))
    print(json.dumps({"entries": LogEntry.objects.count(), "django": django.__version__}), flush=True)
    for line in sys.stdin:
        answer = client.get("/admin/auditlog/logentry/", json.loads(line))
        print(json.dumps({"status": answer.status_code, "bytes": len(answer.content)}), flush=True)
        if answer.status_code != 200:
            raise RuntimeError(f"the admin answered {answer.status_code}")


def fill(lines: Path, ready: Path) -> None:
    """Make an entry of each line: the target is the object, the detail what changed."""
    if ready.exists():
        return
    from auditlog.models import LogEntry
    from django.contrib.auth.models import User
    from django.contrib.contenttypes.models import ContentType
    from django.core.management import call_command
    from django.db import transaction

    call_command("migrate", verbosity=0)
    User.objects.all().delete()
    LogEntry.objects.all().delete()
    User.objects.create_superuser("admin", "admin@example.com", "admin")
    kind = ContentType.objects.get_for_model(User)
    users: dict[str, Any] = {}
    number = 0
    with lines.open("rb") as file, transaction.atomic():
        while some := [json.loads(line) for line in islice(file, 10_000)]:
            for name in {one["user"] for one in some} - users.keys():
                users[name] = User.objects.create(username=name)
            LogEntry.objects.bulk_create(
                LogEntry(
                    content_type=kind, object_pk=str(number + place), object_id=number + place, action=1,
                    object_repr=one["target"], changes={one["action"]: ["", one["detail"]]}, actor=users[one["user"]],
                    remote_addr=one["ip"] or None, timestamp=datetime.fromisoformat(one["timestamp"]),
                )
                for place, one in enumerate(some)
            )  # fmt: skip
            number += len(some)
    ready.touch()


def __getattr__(name: str) -> Any:
    """The URLs, which Django asks this module for when it is set up."""
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.contrib import admin
    from django.urls import path

    return [path("admin/", admin.site.urls)]


if __name__ == "__main__":
    main()
