"""GRADTUNE_REDIS_URL: what would be ignored or misread is refused, and no password is printed."""

from __future__ import annotations

import re

import pytest
import redis.connection
from click.testing import CliRunner

from service.cli import main
from service.redis_url import FORM, check_url

GOOD = {
    "redis://h": {"host": "h"},
    "redis://h/": {"host": "h"},
    "redis://:p%40ss%3Aw%2Frd%231%25@h:7000/3": {"host": "h", "port": 7000, "password": "p@ss:w/rd#1%", "db": 3},
    "redis://user:p@[::1]:7000": {"host": "::1", "port": 7000, "username": "user", "password": "p"},
    "rediss://h/1?ssl_cert_reqs=none&ssl_check_hostname=false": {"db": 1, "ssl_cert_reqs": "none"},
    "unix:///run/r.sock?db=2": {"path": "/run/r.sock", "db": 2},
    "unix://:p@/run/a%20b%3F.sock": {"path": "/run/a b?.sock", "password": "p"},
    "redis://h?db=4&client_name=g&health_check_interval=10": {"db": 4, "client_name": "g"},
}
BAD = {
    "redis://": "no host",
    "redis:///path": "no host",
    "redis://:6379": "no host",
    "redis://h/abc": "no number of a database",
    "redis://h/1/2": "no number of a database",
    "redis://h/-1": "no number of a database",
    "redis://h:notaport": "port cannot be read",
    "redis://h:70000": "port cannot be read",
    "redis://h:0": "port is missing or 0",
    "redis://h:/0": "port is missing or 0",
    "redis://a..b": "host or its port cannot be read",
    "redis://[::1": "cannot be read",
    "redis://h?foo=bar": "no option foo; there are db,",
    "redis://h?decode_responses=True": "no option decode_responses",
    "redis://h?protocol=3": "no option protocol",
    "redis://h?socket_timeout=5": "no option socket_timeout",
    "redis://h?ssl_cert_reqs=none": "no option ssl_cert_reqs without TLS",
    "rediss://h?ssl_cert_reqs=maybe": "ssl_cert_reqs has no value",
    "rediss://h?ssl_ca_certs=/there/is/none.pem": "file that ssl_ca_certs names",
    "redis://h?db=": "db has no value",
    "redis://h?db=x": "db has no value",
    "redis://h?db=1&db=2": "there twice",
    "redis://h/1?db=2": "there twice",
    "redis://h/0#1": "follows a #",
    " redis://h": "has a blank",
    "redis://h ": "has a blank",
    "h:6379": "does not begin with",
    "valkey://h": "valkey:// is none of",
    "http://h": "http:// is none of",
    "redis+sentinel://h/m/0": "name the address of one server",
    "redis-cluster://h": "name the address of one server",
    "unix://": "has no path",
    "unix://run/r.sock": "third slash",
    "redis://:geheim@ss:w/rd#1%@h:6379": "cannot be read",
    "redis://:gehe[im@h": "cannot be read",
    "redis://:geheim#x@h": "cannot be read",
    "redis://:geheim?x@h": "cannot be read",
    "redis://:geheim/x@h": "cannot be read",
}


@pytest.mark.parametrize("url", GOOD)
def test_what_is_understood_is_what_redis_py_reads(url: str) -> None:
    check_url(url)
    assert redis.connection.parse_url(url).items() >= GOOD[url].items()


@pytest.mark.parametrize("url", BAD)
def test_everything_else_is_refused_with_the_form(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape(BAD[url])) as refusal:
        check_url(url)
    said = str(refusal.value)
    assert said.startswith("GRADTUNE_REDIS_URL (--redis-url) is not understood: ")
    assert said.endswith(FORM)
    assert "gehe" not in said


def test_a_wrong_url_ends_the_start_before_anything_is_opened() -> None:
    for command in ("serve", "api", "worker"):
        result = CliRunner().invoke(main, [command, "--redis-url", "redis://:geheim@h/abc"])
        assert result.exit_code == 1
        assert "is not understood: what follows the host is no number of a database" in result.stderr
        assert "geheim" not in result.output
