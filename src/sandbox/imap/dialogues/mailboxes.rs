//! Mailboxes: listed, made, renamed, and what they are for.
//!
//! Not here: what lies in them (`messages`).

use super::{GREETING, LOGIN, World, check, check_in};
use crate::sandbox::behaviour::{Behaviour, Extensions, MailboxNames};

#[test]
fn mailboxes_are_listed_with_their_use() {
    check(
        "C: 1 LIST \"\" \"\"
        S: * LIST (\\Noselect) \"/\" \"\"
        S: 1 OK done
        C: 2 LIST \"\" *
        S: * LIST (\\HasNoChildren) \"/\" \"INBOX\"
        S: * LIST (\\HasNoChildren \\Sent) \"/\" \"Sent\"
        S: * LIST (\\HasNoChildren \\Drafts) \"/\" \"Drafts\"
        S: * LIST (\\HasNoChildren \\Trash) \"/\" \"Trash\"
        S: * LIST (\\HasNoChildren \\Junk) \"/\" \"Junk\"
        S: * LIST (\\HasNoChildren \\Archive) \"/\" \"Archive\"
        S: 2 OK done
        C: 3 CREATE Deals/2026
        S: 3 OK done
        C: 4 CREATE Deals
        S: 4 OK done
        C: 5 LIST \"\" Deals%
        S: * LIST (\\HasChildren) \"/\" \"Deals\"
        S: 5 OK done
        C: 6 UNSUBSCRIBE Deals
        S: 6 OK done
        C: 7 LSUB \"\" Deals*
        S: * LSUB (\\HasNoChildren) \"/\" \"Deals/2026\"
        S: 7 OK done
        C: 8 LIST (SPECIAL-USE) \"\" \"S*\"
        S: * LIST (\\HasNoChildren \\Sent) \"/\" \"Sent\"
        S: 8 OK done
        C: 9 LIST \"\" \"Sent\" RETURN (SPECIAL-USE)
        S: * LIST (\\HasNoChildren \\Sent) \"/\" \"Sent\"
        S: 9 OK done
        C: 10 CREATE Sent
        S: 10 NO [ALREADYEXISTS] that mailbox exists
        C: 11 DELETE INBOX
        S: 11 NO [CANNOT] that mailbox stays
        C: 12 RENAME Deals Offers
        S: 12 OK done
        C: 13 STATUS Offers (MESSAGES UIDNEXT UNSEEN)
        S: * STATUS \"Offers\" (MESSAGES 0 UIDNEXT 1 UNSEEN 0)
        S: 13 OK done",
    );
}

#[test]
fn a_provider_of_another_language_without_special_use_only_has_names() {
    let extensions = Extensions { special_use: false, ..Extensions::default() };
    let behaviour = Behaviour { extensions, mailbox_names: MailboxNames::German, ..Behaviour::default() };
    check_in(
        World { behaviour, ..World::default() },
        &format!(
            "{GREETING}{LOGIN}
        C: 1 LIST \"\" Ge*
        S: * LIST (\\HasNoChildren) \"/\" \"Gesendete Elemente\"
        S: * LIST (\\HasNoChildren) \"/\" \"Gel&APY-schte Elemente\"
        S: 1 OK done"
        )
        .replace(" SPECIAL-USE", ""),
    );
}
