"""Groups in the terminal: what alice types and what she sees."""

from __future__ import annotations

from fastchat_client.events import (
    ActDone,
    ActFailed,
    Connected,
    GroupAlarm,
    GroupInvited,
    MailboxProgress,
    MessageWaiting,
    TypingNow,
)
from fastchat_client.group_acting import InviteAct, JoinAct, RoleAct
from fastchat_client.terminal import render
from fastchat_client.terminal.groups import NAME_SECONDS
from fastchat_client.terminal.talk import Talk
from tests.support.talking import AT, DULL, ID, NOW, GroupCase, Paper, group


class Groups(GroupCase):
    def test_a_group_is_opened_by_its_name_with_its_topic(self) -> None:
        self.assertEqual(self.opened, ["── #team · what we do ──"])
        self.assertEqual(self.prompt(), "● #team (3) › ")

    def test_what_others_do_is_a_quiet_line(self) -> None:
        for event, line in (
            (self.changed("joined", "dave"), "dave joined"),
            (
                self.changed("invited", "bob", "dave", "7"),
                "bob invited dave; once joined, dave reads the last 7 days too",
            ),
            (self.changed("invited", "bob", "dave", "0"), "once joined, dave reads what is written from then on"),
            (self.changed("left", "carol"), "carol left; what is written from now on is not for them"),
            (self.changed("removed", "bob", "alice"), "bob removed you; what is written from now on is not for you"),
            (self.changed("role", "bob", "alice", "admin"), "bob made you an admin"),
            (self.changed("title", "bob", "", "crew"), "bob named the group crew"),
            (self.changed("deleted", "bob"), "bob deleted the group"),
        ):
            self.tell(event)
            self.assertIn(line, self.one())
        self.assertNotIn("class:alarm", self.paper.styles)

    def test_of_another_group_it_says_which_and_not_while_catching_up(self) -> None:
        self.talk.typed("/msg bob")
        self.printed()
        self.tell(self.changed("joined", "dave"))
        self.assertEqual(self.one(), "   #team: dave joined")
        self.tell(Connected("chat-1", 5), self.changed("joined", "erin"), self.changed("removed", "bob", "alice"))
        self.assertIn("removed you", self.one())

    def test_an_invitation_says_what_to_type(self) -> None:
        crew = group("crew", role="invited", letter="b")
        self.messenger.book.infos.append(crew)
        self.tell(GroupInvited(crew.conversation, "crew", "sailing", "bob", 2, 7))
        self.assertEqual(
            self.one().split("\n"),
            [
                '   ✉ bob invites you to #crew ("sailing", 2 members), with the last 7 days',
                "   /group join #crew accepts, /group leave #crew declines",
            ],
        )
        self.tell(self.changed("joined", "dave", where=crew.conversation))
        self.assertEqual(self.printed(), [], "what became of it before is not what one is invited to")
        self.talk.typed("/group join #crew")
        self.assertEqual(self.messenger.done, [("act", crew.conversation, JoinAct())])
        self.tell(ActDone(self.messenger.count, crew.conversation))
        self.assertIn("── #crew ──", self.printed()[0], "one looks at what one has joined")

    def test_an_invitation_waits_a_moment_for_its_name(self) -> None:
        event = GroupInvited(group("", letter="b").conversation, "", "", "bob", 2, 0)
        self.tell(event)
        self.assertEqual(self.printed(), [])
        self.clock.advance(NAME_SECONDS)
        self.assertIn("bob invites you to #62000000 (2 members)\n", self.one())

    def test_invitations_that_were_not_answered_are_told_at_the_start(self) -> None:
        self.messenger.book.infos = [group("crew", role="invited", invited=(("alice", "bob"),))]
        self.begin(Paper())
        self.talk.began(None)
        self.assertIn("bob invites you to #crew", "\n".join(self.printed()))

    def test_what_is_typed_becomes_acts(self) -> None:
        self.talk.typed("/group invite dave 0")
        self.talk.typed("/group promote carol")
        self.talk.typed("/group demote bob")
        self.assertEqual(
            self.messenger.done,
            [
                ("act", ID, InviteAct("dave", history=0)),
                ("act", ID, RoleAct("carol", "admin")),
                ("act", ID, RoleAct("bob", "admin")),
            ],
        )
        self.assertEqual(self.printed(), [], "what is done is said when it is")
        for line, words in (
            ("/group promote bob", "bob is an owner already"),
            ("/group demote carol", "carol is a member already"),
            ("/group promote dave", "dave is no member"),
            ("/group rename my/group", "one word"),
            ("/group create #x#y", "one word"),
            ("/group join #nowhere", "you know no group"),
        ):
            self.talk.typed(line)
            self.assertIn(words, self.one())

    def test_what_is_refused_says_why_and_what_to_do(self) -> None:
        self.tell(ActFailed(1, ID, "group-changed", "somebody changed it in the same moment (bob removed carol)."))
        self.assertEqual(
            self.one(),
            "#team: somebody changed it in the same moment (bob removed carol); type it again if you still want it",
        )
        self.tell(ActFailed(2, ID, "not-allowed", "members may not do that"))
        self.assertEqual(self.one(), "#team: members may not do that")

    def test_without_a_network_it_is_said_when_it_will_be_done(self) -> None:
        self.begin(Paper())
        self.talk.typed("/group invite #team dave")
        self.assertIn("at the next connection", self.one())

    def test_a_group_is_made_and_open_at_once(self) -> None:
        self.talk.typed("/group create crew sailing")
        self.assertEqual(self.printed(), ["── #crew · sailing ──"])
        self.assertEqual(self.messenger.done[0], ("create", "crew", "sailing"))
        self.assertEqual(self.prompt(), "● #crew (1) › ")

    def test_an_alarm_is_loud_and_says_what_it_means(self) -> None:
        for code, words in (
            ("group-forged", "nobody who may has signed"),
            ("group-replayed", "came again"),
            ("group-withheld", "kept back from you"),
            ("group-forked", "different histories"),
            ("group-outsider", "no member"),
        ):
            self.paper.styles.clear()
            self.tell(GroupAlarm(ID, code, "a reason", "evidence", proof=True))
            line = self.one()
            for expected in ("ALARM in #team", words, code, "a reason", "Tell the others", "the other file"):
                self.assertIn(expected, line)
            self.assertIn("class:alarm", self.paper.styles)
        self.tell(GroupAlarm(ID, "group-forked", "bob says so", "evidence", proof=False))
        self.assertIn("may be mistaken or lie", self.one())

    def test_groups_and_members_are_listed(self) -> None:
        self.messenger.book.infos += [
            group("old", role="gone", letter="c"),
            group("crew", role="invited", invited=(("alice", "bob"), ("dave", "bob")), letter="b"),
        ]
        self.arrives("unread")
        self.talk.typed("/groups")
        team, crew, old = self.printed()
        self.assertIn("#team  member  3 members  1 unread  what we do", team)
        self.assertIn("#crew  invited, not joined", crew)
        self.assertIn("#old   not in it any more", old)
        self.talk.typed("/group show #crew")
        text = "\n".join(self.printed())
        for expected in ("3 members    alice, bob (owner), carol", "invited      alice (by bob), dave (by bob)"):
            self.assertIn(expected, text)
        self.talk.typed("/msg #old")
        self.assertIn("not in this group any more", self.printed()[-1])
        self.assertIn("#old (not a member)", self.prompt())

    def test_two_groups_of_one_name_are_told_apart(self) -> None:
        self.messenger.book.infos.append(group("team", letter="b"))
        self.tell(self.changed("joined", "dave"))
        self.printed()
        self.talk.typed("/groups")
        self.assertEqual([line.split()[0] for line in self.printed()], ["#team/61000000", "#team/62000000"])
        self.assertEqual(self.talk.completions("/msg #"), ["#61000000", "#62000000"])


class Elsewhere(GroupCase):
    def setUp(self) -> None:
        super().setUp()
        self.talk.typed("/msg bob")
        self.printed()

    def test_a_message_is_announced_with_its_group(self) -> None:
        self.tell(self.arrives("hello"))
        self.assertRegex(self.one(), r"^   \d\d:\d\d ✉ #team bob: hello$")
        self.tell(self.arrives("look @alice", 2, mentioned=True))
        self.assertIn("bob: @you look @alice", self.one())
        self.assertIn("unread: #team 2", self.status())

    def test_a_muted_one_comes_without_a_sign_unless_one_is_called(self) -> None:
        self.messenger.vault.muted.add(ID)
        self.tell(self.arrives("hello", muted=True))
        self.assertEqual(self.printed(), [])
        self.assertNotIn("unread", self.status())
        self.tell(self.arrives("@alice!", 2, muted=True, mentioned=True))
        self.assertIn("@you", self.one())

    def test_what_was_said_before_one_joined_is_announced_once(self) -> None:
        self.tell(*(self.arrives(str(number), number, earlier=True) for number in range(3)))
        self.assertIn("before you joined is here: /msg #team", self.one())
        self.talk.typed("/msg #team")
        self.printed()
        self.tell(self.arrives("old", 9, earlier=True))
        self.assertTrue(self.one().endswith("bob: old  (said before you joined)"))

    def test_what_came_while_one_was_away_is_counted_by_name(self) -> None:
        self.tell(Connected("chat-1", 2), self.arrives("1", 1), self.arrives("2", 2), MailboxProgress(2, 2))
        self.assertEqual(self.printed(), ["While you were away: #team 2"])


class Dull(GroupCase):
    def test_a_terminal_without_symbols_gets_none(self) -> None:
        talk = Talk(self.messenger, self.paper, DULL, self.clock, self.messenger.book, lambda: NOW)
        talk.typed("/msg #team")
        talk.on_events(
            [
                self.arrives("hello", reply="bob1.1"),
                MessageWaiting("bob", ID, "", AT, "bob1.2"),
                GroupInvited(ID, "team", "", "bob", 1, 7),
                TypingNow(ID, "bob"),
                self.arrives("x", 5, where="bob"),
            ]
        )
        talk.typed("/who")
        talk.typed("/info 1")
        everything = [*self.printed(), render.plain(talk.prompt()), render.plain(talk.status())]
        self.assertTrue("".join(everything).isascii(), everything)
