//! Who sees which mail of his workspace: the one condition that every statement carries which shows mail to somebody.
//!
//! A session that reads for a user who may not see everything is told so once (`Session::see_as`); what is hidden from him is
//! missing in all that it reads. Not here: what a user may see (`core::policy`). Transactions and flows see everything.

use super::{Session, Statement};
use crate::core::ids::{UserId, WorkspaceId};

/// Somebody who does not see everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Viewer {
    pub user: UserId,
    pub sees: Sees,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sees {
    /// What he wrote, and what came by his accounts and addresses.
    Own,
    /// That, and all mail with contacts who are assigned to him.
    OwnAndAssigned,
}

impl Session {
    /// Hides from now on what this user may not see; `None` hides nothing.
    pub fn see_as(&mut self, viewer: Option<Viewer>) {
        self.viewer = viewer;
    }

    /// Whether something may be hidden.
    #[must_use]
    pub fn hides(&self) -> bool {
        self.viewer.is_some()
    }
}

impl Statement {
    /// Appends that the message `m` may be seen.
    pub(super) fn seen(self, viewer: Option<Viewer>) -> Self {
        match viewer {
            Some(viewer) => self.text(" and ").may_see(viewer),
            None => self,
        }
    }

    fn may_see(self, Viewer { user, sees }: Viewer) -> Self {
        let own = self
            .text("(m.author_role = 'user' and m.author_id = ")
            .arg(user)
            .text(
                " or exists (select 1 from sightings v where v.workspace = m.workspace and v.message = m.id \
                 and v.user_id = ",
            )
            .arg(user)
            .text(")");
        match sees {
            Sees::Own => own.text(")"),
            Sees::OwnAndAssigned => own
                .text(
                    // SQLite would rather begin at all contacts of the user: a cross join it does in the order it is written.
                    " or exists (select 1 from message_contacts p cross join contacts a \
                     where p.workspace = m.workspace and p.message = m.id and a.workspace = p.workspace \
                     and a.id = p.contact and a.assigned_user_id = ",
                )
                .arg(user)
                .text("))"),
        }
    }

    /// Appends that one of the messages of the conversation `c`, or of what it was merged into, may be seen.
    pub(super) fn conversation_seen(self, viewer: Option<Viewer>) -> Self {
        if viewer.is_none() {
            return self;
        }
        self.text(
            " and exists (select 1 from messages m where m.workspace = c.workspace \
             and m.conversation = coalesce(c.merged_into, c.id)",
        )
        .seen(viewer)
        .text(")")
    }

    /// The same for a list: begun at what he may see, so that who has little is shown it without a look at everything.
    pub(super) fn among_seen_conversations(self, workspace: WorkspaceId, viewer: Option<Viewer>) -> Self {
        let Some(Viewer { user, sees }) = viewer else { return self };
        let own = self
            .text(
                " and c.id in (select m.conversation from messages m where m.author_role = 'user' \
                 and m.workspace = ",
            )
            .arg(workspace)
            .text(" and m.author_id = ")
            .arg(user)
            .text(
                " union select m.conversation from sightings v join messages m on m.workspace = v.workspace \
                 and m.id = v.message where v.workspace = ",
            )
            .arg(workspace)
            .text(" and v.user_id = ")
            .arg(user);
        match sees {
            Sees::Own => own.text(")"),
            Sees::OwnAndAssigned => own
                .text(
                    " union select m.conversation from contacts a cross join message_contacts p \
                     cross join messages m where p.workspace = a.workspace and p.contact = a.id \
                     and m.workspace = p.workspace and m.id = p.message and a.workspace = ",
                )
                .arg(workspace)
                .text(" and a.assigned_user_id = ")
                .arg(user)
                .text(")"),
        }
    }

    /// Appends that what the event `e` tells of may be seen. Mail that was left out is told only to who sees everything.
    pub(super) fn event_seen(self, viewer: Option<Viewer>) -> Self {
        if viewer.is_none() {
            return self;
        }
        self.text(
            " and (e.message is null and e.conversation is null and e.type <> 'message.skipped' \
             or exists (select 1 from messages m where m.workspace = e.workspace and m.id = e.message",
        )
        .seen(viewer)
        .text(
            ") or e.message is null and exists (select 1 from conversations c \
             where c.workspace = e.workspace and c.id = e.conversation",
        )
        .conversation_seen(viewer)
        .text("))")
    }

    /// Appends that the decision `d` is about mail he may see, or mail in an account of his.
    pub(super) fn decision_seen(self, viewer: Option<Viewer>) -> Self {
        let Some(Viewer { user, .. }) = viewer else { return self };
        self.text(
            " and (exists (select 1 from accounts o where o.workspace = d.workspace and o.id = d.account \
             and o.user_id = ",
        )
        .arg(user)
        .text(") or exists (select 1 from messages m where m.workspace = d.workspace and m.id = d.message")
        .seen(viewer)
        .text("))")
    }
}
