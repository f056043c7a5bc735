//! Reads HTML with a scanner of its own and names the first thing in it that sanitised mail may not hold.
//!
//! It knows nothing of how the HTML was made safe: it takes what a browser could take for a tag, an attribute or a scheme, and
//! rather too much than too little. Not here: the cleaner (`mail::sanitise`).

const ELEMENTS: [&str; 79] = [
    "a",
    "abbr",
    "acronym",
    "article",
    "aside",
    "b",
    "bdi",
    "bdo",
    "big",
    "blockquote",
    "br",
    "caption",
    "center",
    "cite",
    "code",
    "col",
    "colgroup",
    "data",
    "dd",
    "del",
    "dfn",
    "div",
    "dl",
    "dt",
    "em",
    "figcaption",
    "figure",
    "font",
    "footer",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "header",
    "hgroup",
    "hr",
    "i",
    "img",
    "ins",
    "kbd",
    "li",
    "mark",
    "nav",
    "ol",
    "p",
    "pre",
    "q",
    "rp",
    "rt",
    "rtc",
    "ruby",
    "s",
    "samp",
    "section",
    "small",
    "span",
    "strike",
    "strong",
    "sub",
    "sup",
    "table",
    "tbody",
    "td",
    "tfoot",
    "th",
    "thead",
    "time",
    "tr",
    "tt",
    "u",
    "ul",
    "var",
    "wbr",
    "big",
    "center",
    "font",
    "section",
];
const ATTRIBUTES: [&str; 20] = [
    "href",
    "title",
    "src",
    "alt",
    "width",
    "height",
    "colspan",
    "rowspan",
    "align",
    "valign",
    "border",
    "cellpadding",
    "cellspacing",
    "start",
    "type",
    "color",
    "size",
    "dir",
    "lang",
    "rel",
];
const LINKS: [&str; 4] = ["http:", "https:", "mailto:", "tel:"];
const PICTURES: [&str; 6] =
    ["cid:", "data:image/png", "data:image/jpeg", "data:image/jpg", "data:image/gif", "data:image/webp"];

/// The first element, attribute or scheme outside the list.
pub fn outside_allow_list(html: &str) -> Option<String> {
    let mut rest = html;
    while let Some((_, after)) = rest.split_once('<') {
        let name = after.strip_prefix('/').unwrap_or(after);
        let name: String = name.chars().take_while(|c| !c.is_whitespace() && !"/>".contains(*c)).collect();
        if !ELEMENTS.contains(&name.as_str()) {
            return Some(format!("<{name}"));
        }
        let (tag, after) = tag_of(after);
        rest = after;
        if let Some(found) = outside_in_tag(&name, tag) {
            return Some(found);
        }
    }
    None
}

/// The inside of a tag and what follows it; a bracket in quotes ends nothing.
fn tag_of(text: &str) -> (&str, &str) {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            (None, '>') => return text.split_at(at),
            _ => {}
        }
    }
    (text, "")
}

fn outside_in_tag(element: &str, tag: &str) -> Option<String> {
    let mut rest = tag.split_once(char::is_whitespace).map_or("", |(_, rest)| rest);
    while !rest.trim().is_empty() {
        let Some((name, after)) = rest.split_once("=\"") else { return Some(rest.to_owned()) };
        let (value, after) = after.split_once('"').unwrap_or((after, ""));
        rest = after;
        let name = name.trim();
        if !ATTRIBUTES.contains(&name) {
            return Some(format!("{element} {name}"));
        }
        // As browsers read a URL: character references resolved, and neither tabs nor line ends nor controls before it.
        let url: String =
            unescaped(value).chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect();
        let url = url.to_lowercase();
        let is_allowed = match name {
            "href" => LINKS.iter().any(|scheme| url.starts_with(scheme)),
            "src" => element == "img" && PICTURES.iter().any(|kind| url.starts_with(kind)),
            _ => true,
        };
        if !is_allowed {
            return Some(format!("{element} {name}={url}"));
        }
    }
    None
}

fn unescaped(value: &str) -> String {
    value
        .replace("&nbsp;", "\u{a0}")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
}
