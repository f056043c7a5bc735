//! Which mailbox is Sent, Drafts, All Mail, Junk and Trash: SPECIAL-USE first, then the names that the provider is known to give them,
//! then names in many languages.
//!
//! Not here: the administrator's word, which goes before both, and what is done with a mailbox once chosen.

use super::mailbox::{ListedMailbox, MailboxName, SpecialUse};

/// The mailboxes of an account that a mail client knows by their use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    pub inbox: MailboxName,
    pub sent: Option<MailboxName>,
    /// Further mailboxes flagged `\Sent`, as Exchange and Dovecot set-ups have them: mail may lie in each.
    pub other_sent: Vec<MailboxName>,
    pub drafts: Option<MailboxName>,
    /// Every message of the account in one mailbox: Gmail's All Mail.
    pub all: Option<MailboxName>,
    pub archive: Option<MailboxName>,
    pub junk: Option<MailboxName>,
    pub trash: Option<MailboxName>,
}

/// What a provider calls such mailboxes, with what stands above them, where it does not say itself which they are.
pub type OwnName<'a> = (SpecialUse, &'a str);

/// Chooses among the mailboxes of a LIST.
#[must_use]
pub fn choose(mailboxes: &[ListedMailbox], own: &[OwnName<'_>]) -> Chosen {
    let one = |special| find(mailboxes, own, special).map(|found| found.name.clone());
    let sent = one(SpecialUse::Sent);
    let flagged = mailboxes
        .iter()
        .filter(|mailbox| mailbox.selectable && mailbox.special_use == Some(SpecialUse::Sent));
    Chosen {
        inbox: MailboxName::inbox(),
        other_sent: flagged
            .map(|mailbox| mailbox.name.clone())
            .filter(|name| Some(name) != sent.as_ref())
            .collect(),
        sent,
        drafts: one(SpecialUse::Drafts),
        all: one(SpecialUse::All),
        archive: one(SpecialUse::Archive),
        junk: one(SpecialUse::Junk),
        trash: one(SpecialUse::Trash),
    }
}

fn find<'m>(
    mailboxes: &'m [ListedMailbox],
    own: &[OwnName<'_>],
    special: SpecialUse,
) -> Option<&'m ListedMailbox> {
    let usable = || mailboxes.iter().filter(|mailbox| mailbox.selectable && !mailbox.name.is_inbox());
    let named = || usable().filter(|mailbox| mailbox.special_use.is_none());
    let flagged = || usable().find(|mailbox| mailbox.special_use == Some(special));
    let called = || {
        let mut names = own.iter().filter(|(of, _)| *of == special).map(|(_, name)| *name);
        names.find_map(|name| named().find(|mailbox| mailbox.name.display() == name))
    };
    let ranked = || {
        // A customer's "Clients/Sent" is not the account's: the highest level wins, and the surest name within it.
        let ranked =
            named().filter_map(|mailbox| Some((mailbox.depth(), rank(mailbox.leaf(), special)?, mailbox)));
        ranked.min_by_key(|(depth, rank, _)| (*depth, *rank)).map(|(_, _, mailbox)| mailbox)
    };
    flagged().or_else(called).or_else(ranked)
}

/// The place of a name in its table; earlier is surer.
fn rank(leaf: &str, special: SpecialUse) -> Option<usize> {
    let leaf = leaf.trim().to_lowercase().replace(['_', '-'], " ");
    names(special).position(|name| name == leaf)
}

/// Lower case, with spaces for `_` and `-`: what Gmail, Outlook, Apple, Yahoo, GMX, web.de, T-Online, Orange, Libero,
/// Seznam, WP, mail.ru, Yandex, QQ, NetEase, Naver and Roundcube, Thunderbird, Zimbra, SOGo call them.
fn names(special: SpecialUse) -> impl Iterator<Item = &'static str> {
    let names = match special {
        SpecialUse::Sent => SENT,
        SpecialUse::Drafts => DRAFTS,
        SpecialUse::Trash => TRASH,
        SpecialUse::Junk => JUNK,
        SpecialUse::All => ALL,
        SpecialUse::Archive => ARCHIVE,
    };
    names.split(", ")
}

const SENT: &str = "\
    sent, sent items, sent messages, sent mail, sent objects, gesendet, gesendete objekte, \
    gesendete elemente, gesendete nachrichten, gesendete e mails, envoyés, éléments envoyés, \
    messages envoyés, objets envoyés, courrier envoyé, envoyes, elements envoyes, enviados, \
    elementos enviados, mensajes enviados, correo enviado, enviats, elements enviats, itens enviados, \
    mensagens enviadas, e mails enviados, items enviados, inviata, inviati, posta inviata, \
    elementi inviati, messaggi inviati, verzonden, verzonden items, verzonden berichten, \
    verzonden e mail, odeslané, odeslaná pošta, odeslane, odoslané, odoslaná pošta, odoslane, wysłane, \
    elementy wysłane, wyslane, отправленные, исходящие письма, надіслані, відправлені, изпратени, \
    skickat, skickade, skickade objekt, sendt, sendte, sendte elementer, sendt post, sendte meldinger, \
    lähetetyt, lähetetyt viestit, lähetetyt kohteet, elküldött, elküldött elemek, elküldött üzenetek, \
    trimise, elemente trimise, mesaje trimise, poslano, poslane stavke, poslane poruke, poslato, \
    послато, gönderilmiş, gönderilmiş öğeler, gönderilmiş postalar, gönderilenler, απεσταλμένα, \
    σταλμένα, saadetud, saadetud kirjad, nosūtītie, išsiųsta, išsiųsti laiškai, 已发送, 已发送邮件, 已发邮件, 已傳送, \
    寄件備份, 已寄出, 送信済み, 送信済みアイテム, 送信済みメール, 보낸편지함, 보낸 편지함, 보낸메일함, 보낸 메일함, đã gửi, thư đã gửi, terkirim, \
    ส่งแล้ว, จดหมายที่ส่ง, פריטים שנשלחו, דואר שנשלח, נשלחו, المرسلة, العناصر المرسلة, البريد المرسل, \
    ارسال شده";

const DRAFTS: &str = "\
    drafts, draft, entwürfe, entwurf, entwuerfe, brouillons, brouillon, borradores, borrador, \
    esborranys, rascunhos, rascunho, bozze, bozza, concepten, concept, koncepty, rozepsané, rozpísané, \
    wersje robocze, robocze, szkice, черновики, чернетки, чернови, utkast, kladder, kladde, luonnokset, \
    piszkozatok, ciorne, nacrti, osnutki, skice, taslaklar, πρόχειρα, mustandid, melnraksti, \
    juodraščiai, 草稿, 草稿箱, 草稿匣, 下書き, 임시보관함, 임시 보관함, bản nháp, thư nháp, draf, konsep, จดหมายร่าง, ร่าง, \
    טיוטות, مسودات, المسودات, پیش نویس";

const TRASH: &str = "\
    trash, deleted items, deleted messages, deleted, bin, papierkorb, gelöscht, gelöschte elemente, \
    gelöschte objekte, corbeille, éléments supprimés, messages supprimés, papelera, \
    elementos eliminados, papelera de reciclaje, paperera, lixeira, lixo, itens excluídos, \
    itens eliminados, cestino, posta eliminata, eliminata, elementi eliminati, prullenbak, \
    verwijderde items, koš, vyhozená pošta, odstraněná pošta, kôš, odstránená pošta, kosz, \
    elementy usunięte, корзина, удаленные, удалённые, кошик, видалені, кошче, papperskorgen, borttaget, \
    papirkurv, slettet post, slettede elementer, roskakori, poistetut, kuka, lomtár, törölt elemek, \
    coș de gunoi, elemente șterse, smeće, smetnjak, çöp kutusu, çöp, silinmiş öğeler, κάδος, \
    διαγραμμένα, prügikast, miskaste, šiukšlinė, 已删除, 已删除邮件, 垃圾桶, 刪除的郵件, ゴミ箱, ごみ箱, 削除済みアイテム, 휴지통, \
    지운 편지함, thùng rác, sampah, ถังขยะ, אשפה, פריטים שנמחקו, المهملات, سلة المهملات";

const JUNK: &str = "\
    junk, spam, junk e mail, junk email, junk mail, bulk mail, bulk, unerwünscht, spamverdacht, \
    spam verdacht, werbung, unbekannt, junk e mails, courrier indésirable, indésirables, pourriel, \
    correo no deseado, no deseado, correu brossa, lixo eletrônico, correio eletrônico não solicitado, \
    posta indesiderata, indesiderata, ongewenste e mail, ongewenst, reclame, nevyžádaná pošta, \
    nevyžiadaná pošta, wiadomości śmieci, niechciane, спам, нежелательная почта, небажана пошта, \
    нежелана поща, skräppost, søppelpost, uønsket e post, uønsket post, roskaposti, levélszemét, \
    mesaje nedorite, neželjena pošta, neželena pošta, gereksiz, önemsiz e posta, istenmeyen postalar, \
    ανεπιθύμητα, ανεπιθύμητη αλληλογραφία, rämpspost, surogātpasts, brukalas, 垃圾邮件, 垃圾箱, 垃圾郵件, 迷惑メール, \
    스팸메일함, 스팸함, 정크 메일, thư rác, สแปม, จดหมายขยะ, דואר זבל, بريد غير هام, البريد العشوائي, هرزنامه";

const ALL: &str = "\
    all mail, alle nachrichten, tous les messages, todos, todo el correo, todos os e mails, \
    todo o correio, tutti i messaggi, alle e mail, alle berichten, všechny zprávy, všetky správy, \
    wszystkie, вся почта, вся пошта, alla mail, alla e post, al post, all e post, kaikki viestit, \
    összes levél, toate mesajele, tüm postalar, όλα τα μηνύματα, 所有邮件, 所有郵件, 全部郵件, すべてのメール, 전체보관함, \
    tất cả thư, semua email, จดหมายทั้งหมด, כל הדואר, كل البريد";

const ARCHIVE: &str = "\
    archive, archives, archiv, archiviert, archivo, archivos, arquivo, arquivo morto, archivio, \
    archief, archív, archiwum, архив, архів, arkiv, arkisto, archívum, arhivă, arhiv, arhiva, arşiv, \
    αρχείο, 归档, 存档, 封存, アーカイブ, 보관, 보관함, lưu trữ, arsip, ארכיון, أرشيف";

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::imap::token::Cursor;

    fn listed(lines: &[&'static str]) -> Vec<ListedMailbox> {
        let parse = |line: &&'static str| {
            ListedMailbox::parse(&mut Cursor::new(&Bytes::from_static(line.as_bytes())))
        };
        lines.iter().filter_map(parse).collect()
    }

    #[track_caller]
    fn check(lines: &[&'static str], sent: Option<&str>) {
        assert_eq!(choose(&listed(lines), &[]).sent.map(|name| name.display()).as_deref(), sent, "{lines:?}");
    }

    #[test]
    fn special_use_goes_before_names() {
        check(&["() \"/\" Sent", "(\\Sent) \"/\" \"Gesendete Objekte\""], Some("Gesendete Objekte"));
        check(&["(\\Sent \\Noselect) \"/\" Sent", "() \"/\" \"Sent Items\""], Some("Sent Items"));
        check(&["(\\Trash) \"/\" Sent", "() \"/\" Inbox"], None);
    }

    #[test]
    fn what_the_provider_calls_them_goes_before_what_others_do() {
        let own = [(SpecialUse::Sent, "[Gmail]/Sent Mail"), (SpecialUse::Sent, "Sent Messages")];
        let sent = |lines: &[&'static str]| choose(&listed(lines), &own).sent.map(|name| name.display());
        for (lines, expect) in [
            (&["() \"/\" Sent", "() \"/\" \"[Gmail]/Sent Mail\""][..], "[Gmail]/Sent Mail"),
            (&["() \"/\" Sent", "() \"/\" \"Sent Messages\""], "Sent Messages"),
            (&["() \"/\" \"Sent Messages\"", "(\\Sent) \"/\" Sent"], "Sent"),
            (&["() \"/\" Sent", "(\\Noselect) \"/\" \"Sent Messages\""], "Sent"),
            (&["() \"/\" Sent", "() \"/\" \"Clients/Sent Messages\""], "Sent"),
        ] {
            assert_eq!(sent(lines).as_deref(), Some(expect), "{lines:?}");
        }
    }

    #[test]
    fn names_are_known_in_many_languages_and_below_inbox() {
        check(&["() \".\" INBOX", "() \".\" INBOX.Sent"], Some("INBOX.Sent"));
        check(&["() \"/\" &BB4EQgQ,BEAEMAQyBDsENQQ9BD0ESwQ1-"], Some("Отправленные"));
        check(&["() \"/\" &XfJT0ZAB-"], Some("已发送"));
        check(&["() \"|\" \"Verzonden_items\""], Some("Verzonden_items"));
        check(&["() \"/\" \"[Gmail]/Odesl&AOE-n&AOE- po&AWE-ta\""], None);
        check(&["() \"/\" \"Odeslan&AOE- po&AWE-ta\""], Some("Odeslaná pošta"));
    }

    #[test]
    fn the_accounts_own_sent_goes_before_one_in_a_customers_folder() {
        check(&["() \"/\" Clients/Sent", "() \"/\" \"Sent Items\""], Some("Sent Items"));
        check(&["() \"/\" \"Sent Items\"", "() \"/\" Sent"], Some("Sent"));
    }

    #[test]
    fn a_second_sent_is_not_lost() {
        let chosen = choose(
            &listed(&[
                "(\\Sent) \"/\" Sent",
                "(\\Sent) \"/\" \"Sent Items\"",
                "(\\All) \"/\" \"[Gmail]/All Mail\"",
            ]),
            &[],
        );
        assert_eq!(chosen.other_sent, [MailboxName::from_display("Sent Items").unwrap()]);
        assert_eq!(chosen.all, MailboxName::from_display("[Gmail]/All Mail"));
    }

    #[test]
    fn every_name_is_in_the_form_it_is_looked_up_by() {
        use SpecialUse as S;
        for special in [S::All, S::Archive, S::Drafts, S::Junk, S::Sent, S::Trash] {
            for name in names(special) {
                assert!(rank(name, special).is_some(), "{name}");
            }
        }
    }
}
