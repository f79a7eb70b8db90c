"""Every limit of the configuration: what a client is told when it crosses it, and the test that does.

Who adds a limit adds a row here, one in PROTOCOL.md (`tests/test_protocol_document.py` compares the defaults), and a
test that crosses it. Where nothing is told, the row says why not.
"""

from __future__ import annotations

import importlib
import re
import socket
from pathlib import Path
from typing import NamedTuple

import msgspec
from twisted.trial.unittest import SynchronousTestCase, TestCase

from fastchat import errors
from fastchat.config import AttachmentLimits, Limits
from fastchat.protocols import wire
from fastchat_client.dial import dial
from tests.support.delivery import Network, Sender
from tests.support.running import RunningNetwork, until

PROTOCOL = Path(wire.__file__).with_name("PROTOCOL.md").read_text(encoding="utf-8")


class Row(NamedTuple):
    told: str
    """A code, or, in words, why there is none."""
    test: str
    """Below `tests`, where it is crossed."""


TABLE = {
    "backlog": Row("the kernel holds them; nothing is open yet", "test_services.Backlog.test_a_crowd_at_the_door"),
    "connections": Row("too-many-connections", "test_services.Doors.test_too_many_connections_altogether"),
    "connections_per_address": Row(
        "too-many-connections", "test_services.Doors.test_too_many_connections_from_one_address"
    ),
    "connects_per_second_per_address": Row(
        "rate-limited", "test_services.Doors.test_too_many_new_connections_a_second"
    ),
    "loopback_exempt": Row(
        "it lifts a limit and is none", "test_limits.AddressLimitsTests.test_loopback_is_exempt_only_when_configured"
    ),
    "login_seconds": Row("login-timeout", "test_session_limits.BeforeLogin.test_a_login_that_takes_too_long"),
    "frames_before_login": Row("rate-limited", "test_session_limits.BeforeLogin.test_too_many_messages"),
    "login_failures_per_minute": Row(
        "nobody is locked out: the answer comes later", "test_session_login.DeviceLogin.test_failures_have_to_wait"
    ),
    "unaccepted": Row("rate-limited", "test_session_limits.Sending.test_too_many_that_are_not_accepted"),
    "sends_per_second": Row("rate-limited", "test_session_limits.Sending.test_too_many_a_second"),
    "sends_burst": Row("rate-limited", "test_session_limits.Sending.test_too_many_a_second"),
    "requests_per_second": Row("rate-limited", "test_floods.Requests.test_so_many_at_once_and_then_so_many_a_second"),
    "requests_burst": Row("rate-limited", "test_floods.Requests.test_who_goes_on_when_refused_is_disconnected"),
    "claims_per_second": Row("rate-limited", "test_floods.OneTimeKeys.test_who_asks_for_everybodys_keys"),
    "claims_burst": Row("rate-limited", "test_floods.OneTimeKeys.test_who_asks_for_everybodys_keys"),
    "claims_of_one": Row(
        "rate-limited", "test_floods.OneTimeKeys.test_nobody_uses_up_somebodys_keys_over_however_many_connections"
    ),
    "groups_per_user": Row("bad-request", "test_groups_server.Acts.test_no_more_groups_than_one_may_have"),
    "group_acts_per_second": Row("rate-limited", "test_group_session.Acting.test_too_many_acts"),
    "group_acts_burst": Row("rate-limited", "test_group_session.Acting.test_too_many_acts"),
    "whispers_per_second": Row(
        "what is too much is dropped",
        "test_group_session.Whispers.test_too_many_are_dropped_and_a_flood_ends_the_session",
    ),
    "whispers_burst": Row(
        "rate-limited", "test_group_session.Whispers.test_too_many_are_dropped_and_a_flood_ends_the_session"
    ),
    "window_messages": Row(
        "the rest waits", "test_delivery.ExpressCase.test_what_a_full_window_has_no_room_for_is_held_until_there_is"
    ),
    "window_bytes": Row("the rest waits", "test_delivery.ExpressCase.test_the_window_counts_bytes_too"),
    "receipt_seconds": Row(
        "it is stored as well",
        "test_delivery.ExpressCase.test_without_a_receipt_in_time_it_is_stored_and_not_handed_over_twice",
    ),
    "outbound_soft": Row("the rest waits", "test_limits_table.Transports.test_what_is_left_to_tcp"),
    "outbound_hard": Row(
        "it could not be read: the client does not read",
        "test_line.LineCase.test_too_much_for_a_slow_reader_ends_its_connection",
    ),
    "slow_reader_seconds": Row(
        "it could not be read: the client does not read", "test_session_limits.Presence.test_a_slow_reader"
    ),
    "ping_seconds": Row("it is told in `welcome`", "test_session_limits.Presence.test_whoever_says_anything_is_there"),
    "dead_seconds": Row("nobody seems to be there", "test_session_limits.Presence.test_silence"),
    "tcp_user_timeout": Row("nobody seems to be there", "test_limits_table.Transports.test_what_is_left_to_tcp"),
    "mailbox_messages": Row("mailbox-full", "test_store.PostgresStoreTests.test_a_mailbox_holds_so_many_messages"),
    "mailbox_bytes": Row("mailbox-full", "test_store.PostgresStoreTests.test_a_mailbox_holds_so_many_bytes"),
    "mailbox_share": Row(
        "mailbox-full", "test_store.PostgresStoreTests.test_one_account_fills_a_share_of_a_mailbox_and_no_more"
    ),
    "mailbox_page": Row("the next page follows", "test_delivery.MailboxCase.test_more_than_a_page_and_a_window"),
    "mailbox_page_bytes": Row(
        "the next page follows",
        "test_delivery_bounds.Reading.test_a_page_has_so_many_bytes_and_nothing_is_left_behind",
    ),
    "write_batch": Row("the next batch follows", "test_limits_table.Batches.test_a_batch_has_so_many_messages"),
    "write_batch_bytes": Row(
        "the next batch follows", "test_delivery_bounds.Writing.test_a_batch_has_so_many_bytes_and_at_least_one_message"
    ),
    "write_queue_bytes": Row(
        "busy", "test_delivery_bounds.Writing.test_a_queue_that_is_full_takes_nothing_before_the_next_batch_is_written"
    ),
    "sweep_seconds": Row(
        "it is the server's own affair", "test_delivery.MailboxCase.test_the_sweep_finds_what_no_ring_told"
    ),
    "lease_seconds": Row(
        "a late lease changes nothing", "test_placement.LeaseTests.test_a_lease_counts_until_it_expires"
    ),
    "newcomer_share": Row(
        "others are assigned",
        "test_placement.NewcomerTests.test_takes_at_most_twice_its_share_until_it_has_caught_up",
    ),
    "goaways_per_second": Row(
        "it is the server's own pace", "test_drain.Pace.test_no_more_arrive_elsewhere_in_a_second_than_may"
    ),
}


FILES = {
    "largest": Row(
        "attachment-too-large",
        "test_attachments_server.Uploading.test_a_file_of_the_greatest_size_passes_and_one_byte_more_does_not",
    ),
    "quota": Row("quota-exceeded", "test_attachments_server.Uploading.test_an_account_has_its_quota"),
    "keep_days": Row("unknown-attachment", "test_attachments_server.Leaving.test_time_takes_what_is_old"),
    "unfinished_hours": Row("unknown-attachment", "test_attachments_server.Leaving.test_time_takes_what_is_old"),
    "remove_when_fetched": Row(
        "unknown-attachment", "test_attachments_server.Leaving.test_or_it_stays_if_the_operator_wants_that"
    ),
    "chunks_in_flight": Row(
        "rate-limited", "test_attachments_server.Uploading.test_a_window_of_chunks_and_fetches_may_be_unanswered"
    ),
    "memory": Row("busy", "test_attachments_server.Uploading.test_above_its_memory_the_process_is_busy"),
}
"""Of the table `attachments`."""

EVERY = {
    **{f"limits.{key}": row for key, row in TABLE.items()},
    **{f"attachments.{key}": row for key, row in FILES.items()},
}


class EveryLimit(SynchronousTestCase):
    def test_it_has_a_row_and_no_row_is_left_over(self) -> None:
        for table, kind in ((TABLE, Limits), (FILES, AttachmentLimits)):
            self.assertEqual(sorted(table), sorted(field.name for field in msgspec.structs.fields(kind)))

    def test_the_protocol_says_the_same_code_and_each_code_is_one(self) -> None:
        for key, row in EVERY.items():
            is_code = re.fullmatch("[a-z]+(-[a-z]+)*", row.told) is not None
            found = re.search(rf"^\| `{re.escape(key)}` \| [^|]+ \| (`[^`]+`|–) \|", PROTOCOL, re.MULTILINE)
            assert found is not None, f"PROTOCOL.md has no {key}"
            self.assertEqual(found[1].strip("`"), row.told if is_code else "–", key)
            if is_code:
                self.assertTrue(issubclass(errors.by_code(row.told), errors.FastChatError))
                self.assertEqual(errors.by_code(row.told).code, row.told)

    def test_the_test_that_crosses_it_is_there(self) -> None:
        for key, row in EVERY.items():
            module, case, name = row.test.split(".")
            found = getattr(importlib.import_module(f"tests.{module}"), case)
            self.assertTrue(callable(getattr(found, name, None)), f"{key}: {row.test}")


class Batches(SynchronousTestCase):
    def test_a_batch_has_so_many_messages(self) -> None:
        net = Network(write_batch=3)
        self.addCleanup(net.stop)
        net.add_devices("alice", "bob")
        net.store.hold()
        alice = Sender(net, "alice")
        for _ in range(8):
            alice.send("bob")
        net.store.release()
        self.assertEqual(net.store.batches, [[1], [2, 3, 4], [5, 6, 7], [8]])


class Transports(TestCase):
    timeout = 60

    async def test_what_is_left_to_tcp(self) -> None:
        network = await RunningNetwork.start(self, outbound_soft=4096, tcp_user_timeout=7.0)
        line = await dial(network.reactor, network.invite.host, network.running.services[0], network.invite.pin)
        self.addCleanup(line.close)
        [chat, *_] = network.service.chats
        await until(network.reactor, lambda: len(chat._open) == 1)
        [session] = chat._open
        tcp = session._pipe.transport.transport  # type: ignore[attr-defined]
        self.assertEqual(tcp.bufferSize, 4096)
        self.assertEqual(tcp.getHandle().getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 7000)
