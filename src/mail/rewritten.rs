//! Envelope senders that forwarders rewrote (SRS, BATV): which address was meant.
//!
//! Not here: trusting it. Anyone can write such an address; only its author can check the hash in it.

use super::Address;

impl Address {
    /// The address before SRS (`SRS0=hash=day=domain=local@forwarder`, `SRS1=…`) or BATV (`prvs=tag=local@domain`)
    /// rewrote it; `None` when neither did.
    #[must_use]
    pub fn before_rewriting(&self) -> Option<Self> {
        let local = self.local();
        let scheme = local.get(..5)?.to_ascii_lowercase();
        let rest = local.get(5..)?;
        match scheme.as_str() {
            "prvs=" => {
                rest.split_once('=').and_then(|(_, local)| Self::from_parts(local, self.domain()).ok())
            }
            "srs0=" | "srs0+" | "srs0-" => from_srs0(rest),
            // `SRS1=hash=first-forwarder==hash=day=domain=local`
            "srs1=" | "srs1+" | "srs1-" => from_srs0(rest.split_once("==")?.1),
            _ => None,
        }
    }
}

/// `hash=day=domain=local`; the local part may hold further equals signs.
fn from_srs0(rest: &str) -> Option<Address> {
    let mut fields = rest.splitn(4, '=').skip(2);
    let (domain, local) = (fields.next()?, fields.next()?);
    Address::from_parts(local, domain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(address: &str, expect: Option<&str>) {
        let got = Address::parse(address).unwrap().before_rewriting();
        assert_eq!(got.map(|a| a.to_string()).as_deref(), expect, "{address}");
    }

    #[test]
    fn rewritten_senders_are_undone() {
        check("SRS0=HHH=TT=orig.example=joe@fwd.example", Some("joe@orig.example"));
        check("srs0+HHH=TT=orig.example=a=b@fwd.example", Some("a=b@orig.example"));
        check("SRS1=HHH=fwd.example==HHH=TT=orig.example=joe@second.example", Some("joe@orig.example"));
        check("prvs=0123456789=joe@b.example", Some("joe@b.example"));
    }

    #[test]
    fn other_addresses_were_not_rewritten() {
        for address in [
            "joe@b.example",
            "a@b.example",
            "srs0=x@b.example",
            "prvs=joe@b.example",
            "bounce+joe=b.example@l.example",
        ] {
            check(address, None);
        }
    }
}
