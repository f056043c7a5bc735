//! Makes foreign HTML safe to show, and turns it into text.
//!
//! Not here: fetching anything. Remote images are taken out, not proxied; embedded ones stay as `cid:` links.

use std::{
    borrow::Cow,
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use ammonia::{Builder, UrlRelative};
use url::Url;

/// HTML beyond this many bytes is cut before it is cleaned or turned into text; real newsletters have a tenth of it.
pub const HTML_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Tags open at once; deeper documents are attacks on recursive renderers and are shown as plain words.
const DEPTH_MAX: usize = 400;
/// Columns of text made from HTML: wide enough that wrapping is left to whoever shows it.
const TEXT_COLUMNS: usize = 500;

static CLEANER: LazyLock<Builder<'static>> = LazyLock::new(|| {
    let mut cleaner = cleaner();
    cleaner.attribute_filter(keep_attribute);
    cleaner
});

/// An allow-list of what mail needs to look right. No script, style, svg, math, form or frame; links open elsewhere and
/// tell nobody where from. Where they may lead is the attribute filter's.
fn cleaner() -> Builder<'static> {
    let mut builder = Builder::new();
    let structure = [
        "div", "span", "section", "font", "center", "u", "s", "big", "table", "tbody", "thead", "tfoot",
        "tr", "td", "th",
    ];
    builder
        .add_tags(structure)
        .rm_tags(["map", "area", "details", "summary"])
        .clean_content_tags(HashSet::from([
            "script", "style", "title", "svg", "math", "template", "noscript", "iframe", "object", "select",
            "textarea", "button",
        ]))
        .tag_attributes(HashMap::from([
            ("a", HashSet::from(["href", "title"])),
            ("img", HashSet::from(["src", "alt", "title", "width", "height"])),
            ("td", HashSet::from(["colspan", "rowspan", "align", "valign", "width"])),
            ("th", HashSet::from(["colspan", "rowspan", "align", "valign", "width"])),
            ("table", HashSet::from(["align", "width", "border", "cellpadding", "cellspacing"])),
            ("ol", HashSet::from(["start", "type"])),
            ("font", HashSet::from(["color", "size"])),
            ("blockquote", HashSet::from(["type"])),
        ]))
        .generic_attributes(HashSet::from(["dir", "lang"]))
        .url_schemes(HashSet::from(["http", "https", "mailto", "tel", "cid", "data"]))
        .url_relative(UrlRelative::Deny)
        .link_rel(Some("noopener noreferrer"));
    builder
}

/// Pictures that mail may carry in a link itself; SVG is a document and stays out.
const DATA_IMAGES: [&str; 5] =
    ["data:image/png", "data:image/jpeg", "data:image/jpg", "data:image/gif", "data:image/webp"];

/// An image is shown only if it came with the message; anything else tells its sender that the mail was read.
fn keep_attribute<'v>(element: &str, attribute: &str, value: &'v str) -> Option<Cow<'v, str>> {
    // As browsers read it: they skip controls before a scheme and line ends within.
    let url: String = value.chars().filter(|c| !c.is_control() && !c.is_whitespace()).take(16).collect();
    let url = url.to_ascii_lowercase();
    let is_embedded = url.starts_with("cid:") || DATA_IMAGES.iter().any(|kind| url.starts_with(kind));
    let keep = match (element, attribute) {
        ("img", "src") => is_embedded,
        ("a", "href") => !url.starts_with("cid:") && !url.starts_with("data:"),
        _ => true,
    };
    keep.then_some(Cow::Borrowed(value))
}

/// HTML that may be shown: only allowed elements and attributes, no remote content.
#[must_use]
pub fn sanitise(html: &str) -> String {
    let html = bounded(html);
    if too_deep(html) { escape_text(&words(html)) } else { CLEANER.clean(html).to_string() }
}

/// The hosts that the links lead to which [`sanitise`] leaves in, as they are asked for in DNS: what a link says proves nothing.
#[must_use]
pub fn link_hosts(html: &str) -> BTreeSet<String> {
    let html = bounded(html);
    if too_deep(html) {
        return BTreeSet::new();
    }
    let (hosts, mut cleaner) = (Arc::new(Mutex::new(BTreeSet::new())), cleaner());
    let found = Arc::clone(&hosts);
    cleaner.attribute_filter(move |element, attribute, value| {
        let kept = keep_attribute(element, attribute, value)?;
        if (element, attribute) == ("a", "href") {
            let host = Url::parse(&kept).ok().and_then(|url| url.host_str().map(str::to_owned));
            found.lock().unwrap_or_else(PoisonError::into_inner).extend(host);
        }
        Some(kept)
    });
    drop(cleaner.clean(html));
    std::mem::take(&mut *hosts.lock().unwrap_or_else(PoisonError::into_inner))
}

/// The text of an HTML document. Linear in what it reads; never fails.
#[must_use]
pub fn html_to_text(html: &str) -> String {
    let html = bounded(html);
    if too_deep(html) {
        return words(html);
    }
    let rendered = html2text::config::plain_no_decorate()
        .no_table_borders()
        .no_link_wrapping()
        .allow_width_overflow()
        .string_from_read(html.as_bytes(), TEXT_COLUMNS);
    let text = rendered.unwrap_or_else(|_| words(html));
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n").trim().to_owned()
}

/// Text as HTML that shows the same, line by line.
#[must_use]
pub fn escape_text(text: &str) -> String {
    format!("<pre>{}</pre>", escape(text))
}

/// Text as HTML shows it, in an element or in a quoted attribute.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + 32);
    for letter in text.chars() {
        match letter {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

fn words(html: &str) -> String {
    super::content_identity::words_of_html(html).split_whitespace().collect::<Vec<_>>().join(" ")
}

fn bounded(html: &str) -> &str {
    html.get(..html.floor_char_boundary(HTML_BYTES_MAX)).unwrap_or(html)
}

/// Counts tags that open and close without asking which; elements that never close make it err on the safe side only
/// in documents with hundreds of them in a row.
fn too_deep(html: &str) -> bool {
    const VOID: [&str; 8] = ["br", "img", "hr", "meta", "input", "link", "col", "wbr"];
    const OFTEN_UNCLOSED: [&str; 6] = ["p", "li", "td", "tr", "th", "o:p"];
    let mut depth = 0_usize;
    for tag in html.split('<').skip(1) {
        let name = tag
            .split(|c: char| c.is_whitespace() || c == '>' || c == '/')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        if tag.starts_with('/') {
            depth = depth.saturating_sub(1);
        } else if name.starts_with(|c: char| c.is_ascii_alphabetic())
            && !VOID.contains(&name.as_str())
            && !OFTEN_UNCLOSED.contains(&name.as_str())
        {
            depth += 1;
        }
        if depth > DEPTH_MAX {
            return true;
        }
    }
    false
}

#[cfg(test)]
#[path = "../../tests/allow_list/mod.rs"]
mod allow_list;

#[cfg(test)]
mod tests {
    use super::{allow_list::outside_allow_list, *};

    #[test]
    fn links_lead_to_the_hosts_that_are_asked_for() {
        let html = "<a href=\"https://bank.example@evil.example/\">bank.example</a><a href='HTTP://B\u{fc}ro.example'><img src=cid:1></a>\
             <a href=mailto:x@y.example>x</a><a href=//c.example>x</a><a href=\"javascript:'//d.example'\">x</a><b>https://e.example</b>\
             <a href=\"https://evil.example/2\">again</a>";
        assert_eq!(Vec::from_iter(link_hosts(html)), ["evil.example", "xn--bro-hoa.example"]);
        assert!(link_hosts(&"<div>".repeat(10_000)).is_empty());
    }

    #[test]
    fn nothing_outside_the_allow_list_survives_what_attackers_write() {
        let payloads = [
            "<script>alert(1)</script>",
            "<ScRiPt/x>alert(1)</sCrIpT >",
            "<img src=x onerror=alert(1)>",
            "<img/src=`x`/onerror=alert(1)>",
            "<svg onload=alert(1)><svg/onload=alert(1)//",
            "<svg><animate onbegin=alert(1) attributeName=x></svg>",
            "<svg><a xlink:href=\"javascript:alert(1)\"><text>x</text></a></svg>",
            "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">",
            "<math><annotation-xml encoding=text/html><script>alert(1)</script></annotation-xml></math>",
            "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
            "<textarea><img title=\"</textarea><img src=x onerror=alert(1)>\">",
            "<style><img src=\"</style><img src=x onerror=alert(1)//\">",
            "<template><img src=x onerror=alert(1)></template>",
            "<xmp><img src=x onerror=alert(1)></xmp><plaintext><b>",
            "<!--><img src=x onerror=alert(1)>--><![CDATA[<img src=x onerror=y>]]>",
            "<a href=\"javascript:alert(1)\">x</a>",
            "<a href=\"JaVaScRiPt:alert(1)\">x</a>",
            "<a href=\"java\nscript:alert(1)\">x</a>",
            "<a href=\"&#1;javascript:alert(1)\">x</a>",
            "<a href=\"&#x6A;avascript&colon;alert(1)\">x</a>",
            "<a href=\"vbscript:x\">x</a><a href=\"data:text/html,x\">x</a>",
            "<a href=\"da\tta:text/html,x\">x</a><a href=\"&#1;data:text/html,x\">x</a>",
            "<a href=\"cid:x\">x</a><a href=\"//evil.example\">x</a><a href=\"/x\">x</a>",
            "<a href=\"https://x.example\" target=_top ping=//x onclick=y style=z id=q name=r>x</a>",
            "<img src=\"https://t.example/p.gif\"><img src=\"//t.example/p.gif\"><img src=p.gif>",
            "<img src=\"ht\ntps://t.example/p.gif\"><img srcset=\"https://t.example/p 2x\" src=cid:a>",
            "<img src=\"data:image/svg+xml,<svg onload=alert(1)>\"><img src=\"da\nta:image/svg+xml,x\">",
            "<img lowsrc=x dynsrc=y longdesc=z usemap=#m src=cid:a><map name=m><area href=javascript:x></map>",
            "<table background=\"https://t.example/p\"><td background=x style=\"background:url(//t)\">x</td></table>",
            "<div style=\"background:url(https://t.example)\">x</div><font face=\"x\" color=red>y</font>",
            "<link rel=stylesheet href=//x><meta http-equiv=refresh content=0;url=//x><base href=//x>",
            "<iframe srcdoc=\"<script>x</script>\"></iframe><object data=x></object><embed src=x><applet code=x>",
            "<form action=//x><input type=image src=x><button formaction=javascript:x>y</button></form>",
            "<video poster=//x><source src=x onerror=y></video><audio src=x><track src=y></audio>",
            "<body onload=x background=//t><marquee onstart=x>y</marquee><details ontoggle=x open><summary>y</summary>",
            "<blockquote cite=\"javascript:x\" type=cite>y</blockquote><q cite=//x>z</q><del cite=//x>w</del>",
            "<p dir=\"ltr&quot; onmouseover=&quot;x\" lang='x\" onclick=\"y'>z</p>",
            "<<b>script>alert(1)<</b>/script>",
            "<a title=\"<img src=x onerror=y>\" href=https://x.example>z</a>",
            "\u{0}<scr\u{0}ipt>alert(1)</scr\u{0}ipt><img src\u{0}=x onerror=y>",
        ];
        for payload in payloads {
            for html in
                [payload.to_owned(), format!("<table><tr><td><b>{payload}"), format!("<p title='{payload}'>")]
            {
                let clean = sanitise(&html);
                assert_eq!(outside_allow_list(&clean), None, "{html:?} {clean:?}");
                assert!(!html_to_text(&html).contains('\0'), "{html:?}");
            }
        }
    }

    #[test]
    fn the_judge_of_the_allow_list_finds_what_is_outside() {
        for html in [
            "<script>",
            "<b onclick=\"x\">",
            "<a href=\"data:x\">",
            "<img src=\"https://x\">",
            "<b x>",
            "<!-- -->",
        ] {
            assert!(outside_allow_list(html).is_some(), "{html}");
        }
        assert_eq!(outside_allow_list("<p dir=\"ltr\">&lt;script&gt; <img src=\"cid:a\"></p>"), None);
    }

    #[track_caller]
    fn check_clean(html: &str, expect: &str) {
        assert_eq!(sanitise(html), expect, "{html:?}");
    }

    #[test]
    fn nothing_active_survives() {
        check_clean("<script>alert(1)</script><b onclick=x>hi</b>", "<b>hi</b>");
        check_clean("<style>b{}</style><svg><script>x</script></svg><math></math>a", "a");
        check_clean("<form action=x><input name=y>a</form><iframe src=z></iframe>", "a");
        check_clean("<a href=\"javascript:x\">a</a>", "<a rel=\"noopener noreferrer\">a</a>");
        check_clean("<p style=\"background:url(http://x)\">a</p>", "<p>a</p>");
    }

    #[test]
    fn only_images_that_came_with_the_message_stay() {
        check_clean("<img src=\"http://t.example/p.gif\" alt=\"x\">", "<img alt=\"x\">");
        check_clean("<img src=\"data:image/png;base64,AAAA\">", "<img src=\"data:image/png;base64,AAAA\">");
        check_clean(
            "<img src=\"data:image/svg+xml,x\"><a href=\"data:text/html,x\">a</a>",
            "<img><a rel=\"noopener noreferrer\">a</a>",
        );
        check_clean("<img src=\"cid:a@b\">", "<img src=\"cid:a@b\">");
    }

    #[test]
    fn links_tell_nobody_where_from() {
        check_clean(
            "<a href=\"https://x.example\">x</a>",
            "<a href=\"https://x.example\" rel=\"noopener noreferrer\">x</a>",
        );
    }

    #[test]
    fn text_keeps_blocks_apart() {
        assert_eq!(
            html_to_text("<table><tr><td>a</td><td>b</td></tr></table><p>c</p>")
                .split_whitespace()
                .collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        assert_eq!(html_to_text("<script>x</script><b>hi</b>"), "hi");
    }

    #[test]
    fn deep_nesting_is_shown_as_words() {
        let deep = "<blockquote>".repeat(50_000) + "deep";
        assert_eq!(html_to_text(&deep), "deep");
        assert_eq!(sanitise(&deep), "<pre>deep</pre>");
    }
}
