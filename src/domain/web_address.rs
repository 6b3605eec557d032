//! Addresses of other servers, as users write them: their form, and whether they point into the public internet.
//!
//! Whoever may create a campaign names servers that we or the carrier then ask. Such an address must not reach what is
//! behind our own firewall: loopback, private networks, the cloud's metadata service. A name is judged by what it
//! resolves to (`services::outbound`), an address here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Longest address, in bytes.
pub const MAX_BYTES: usize = 2_048;

/// Schemes of addresses that are fetched.
pub const HTTP: [&str; 2] = ["https", "http"];

/// What is said of an address that is not public.
pub const NOT_PUBLIC: &str = "must point into the public internet, not at a private, loopback, link-local or otherwise internal address";

/// IPv4 networks that are not public: first address and length of the prefix. IANA's special-purpose registry, and the
/// address at which one cloud keeps its metadata.
const INTERNAL_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    // Carrier-grade NAT; one cloud's metadata lives in it.
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    // Public by its number, but every machine of that cloud reaches the host's agent there.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    // Relays of 6to4, given up.
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    // Multicast.
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    // Reserved, and broadcast.
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Parts of the global unicast range 2000::/3 that are not public.
const INTERNAL_V6: [(Ipv6Addr, u32); 3] = [
    // Protocol assignments: Teredo (with an IPv4 address inside), benchmarks, ORCHID.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Ends of names that never belong to the public internet: of this machine, of local networks, and of clouds' insides.
const INTERNAL_NAMES: [&str; 9] = [
    "localhost",
    "localdomain",
    "local",
    "internal",
    "intranet",
    "lan",
    "home",
    "home.arpa",
    "svc",
];

/// What can be said about an address without looking a name up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach<'a> {
    /// A public IP address.
    Public,
    /// It must not be asked.
    Internal,
    /// A name: it depends on what it resolves to.
    Name(&'a str),
}

/// Reads an address: one of `schemes`, a host, no credentials.
///
/// # Errors
/// The reason, for people.
pub fn parse(text: &str, schemes: &[&str]) -> Result<Url, String> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\') {
        return Err("must not contain spaces, backslashes or control characters".to_owned());
    }
    // Browsers' rules, which the parser follows, forgive missing and surplus slashes; the carrier's parser may not.
    let is_written_out = |url: &Url| {
        text.split_once("://").is_some_and(|(scheme, rest)| {
            scheme.eq_ignore_ascii_case(url.scheme())
                && schemes.contains(&url.scheme())
                && !rest.starts_with('/')
        })
    };
    let Some(url) = Url::parse(text)
        .ok()
        .filter(|url| url.has_host() && is_written_out(url))
    else {
        let beginnings: Vec<_> = schemes
            .iter()
            .map(|scheme| format!("{scheme}://"))
            .collect();
        return Err(format!(
            "must be a URL that begins with {}",
            beginnings.join(" or ")
        ));
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            "must not contain a user name or password: the carrier cannot log in".to_owned(),
        );
    }
    Ok(url)
}

/// Reads the address of a bot that is to be woken. It is the same for every call, so it cannot use columns.
///
/// # Errors
/// The reason, for people.
pub fn parse_warmup(text: &str) -> Result<Url, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("must have at most {MAX_BYTES} bytes"));
    }
    if text.contains("{{") {
        return Err("cannot use columns: one bot is woken for all calls".to_owned());
    }
    parse(text, &HTTP)
}

/// Where an address points, as far as it says so itself.
#[must_use]
pub fn reach(url: &Url) -> Reach<'_> {
    let of_ip = |ip| {
        if is_public(ip) {
            Reach::Public
        } else {
            Reach::Internal
        }
    };
    match url.host() {
        Some(Host::Ipv4(ip)) => of_ip(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => of_ip(IpAddr::V6(ip)),
        Some(Host::Domain(name)) if is_public_name(name) => Reach::Name(name),
        Some(Host::Domain(_)) | None => Reach::Internal,
    }
}

/// Whether an address belongs to the public internet. IPv6 addresses that carry an IPv4 address (mapped, NAT64, 6to4) are
/// as public as that one.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

/// Whether a name may belong to the public internet: it has a dot, and no end that is reserved for the inside.
#[must_use]
pub fn is_public_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let has_end = |end: &&'static str| {
        name.strip_suffix(*end)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    name.contains('.') && !INTERNAL_NAMES.iter().any(has_end)
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    !INTERNAL_V4.iter().any(|(network, length)| {
        let shift = u32::BITS - length;
        u32::from(ip) >> shift == u32::from(*network) >> shift
    })
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let bits = u128::from(ip);
    let begins_with = |network: Ipv6Addr, length: u32| {
        let shift = u128::BITS - length;
        bits >> shift == u128::from(network) >> shift
    };
    let [_, a, b, ..] = ip.segments();
    let inside = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    let [.., high, low] = ip.segments();
    if ip.to_ipv4_mapped().is_some()
        || begins_with(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96)
    {
        return inside(high, low);
    }
    if begins_with(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16) {
        return inside(a, b);
    }
    begins_with(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)
        && !INTERNAL_V6
            .iter()
            .any(|(network, length)| begins_with(*network, *length))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn reached(text: &str) -> Reach<'static> {
        let url = parse(text, &["https", "http", "wss", "ws"]).unwrap();
        match reach(&url) {
            Reach::Name(_) => Reach::Name("a name"),
            Reach::Public => Reach::Public,
            Reach::Internal => Reach::Internal,
        }
    }

    #[test]
    fn every_kind_of_internal_address_is_known() {
        for internal in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::8.8.8.8",
            "100::1",
            "2001::1",
            "2001:0:808:808::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::1",
            "2002:c0a8:101::1",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(ip(internal)), "{internal}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2002:808:808::1",
            "2606:4700:4700::1111",
            "2a00:1450:4001:81b::200e",
        ] {
            assert!(is_public(ip(public)), "{public}");
        }
    }

    #[test]
    fn addresses_in_disguise_are_seen_through() {
        for internal in [
            "http://localhost/",
            "http://LOCALHOST:8080/",
            "https://localhost./",
            "http://a.localhost/",
            "http://metadata/",
            "http://metadata.google.internal/computeMetadata/v1/",
            "http://instance-data.ec2.internal/",
            "http://kubernetes.default.svc/",
            "http://kubernetes.default.svc.cluster.local/",
            "ws://printer.local/",
            "http://router.home.arpa/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://0/",
            "http://127。0。0。1/",
            "http://169.254.169.254/latest/meta-data/",
            "http://169.254.169.254./",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::ffff:10.0.0.1]:27017/",
            "wss://[fd00:ec2::254]/",
        ] {
            assert_eq!(reached(internal), Reach::Internal, "{internal}");
        }
        for name in [
            "https://bots.example.com/warm",
            "wss://internal.example.com/",
            "https://mylocalhost.com/",
            "https://local.example/",
        ] {
            assert_eq!(reached(name), Reach::Name("a name"), "{name}");
        }
        assert_eq!(reached("http://8.8.8.8/"), Reach::Public);
        assert_eq!(reached("https://[2606:4700:4700::1111]/"), Reach::Public);
    }

    #[test]
    fn the_form_of_a_warmup_address_is_checked() {
        for bad in [
            "",
            "bot",
            "ftp://h/x",
            "wss://h/x",
            "https://",
            "https:///h",
            "https://user:secret@h/",
            "https://h/{{city}}",
            "https://h/a b",
            "https://h\\x",
        ] {
            assert!(parse_warmup(bad).is_err(), "{bad}");
        }
        assert!(parse_warmup("https://bots.example.com:8443/warm?x=1").is_ok());
        assert!(parse_warmup(&format!("https://h/{}", "x".repeat(MAX_BYTES))).is_err());
    }

    /// The rules of the standard library that are stable, for comparison.
    fn is_internal_by_the_book(ip: Ipv4Addr) -> bool {
        ip.is_loopback()
            || ip.is_private()
            || ip.is_link_local()
            || ip.is_multicast()
            || ip.is_broadcast()
            || ip.is_documentation()
            || ip.is_unspecified()
    }

    proptest! {
        #[test]
        fn what_the_standard_library_calls_internal_is_never_public(bits in any::<u32>()) {
            let ip = Ipv4Addr::from(bits);
            if is_internal_by_the_book(ip) {
                prop_assert!(!is_public(IpAddr::V4(ip)));
            }
        }

        /// Also for addresses near the borders of the networks, which chance alone hardly meets.
        #[test]
        fn an_ipv4_address_inside_an_ipv6_one_is_as_public_as_itself(
            index in 0..INTERNAL_V4.len(), offset in -2_i64..=2, any_bits in any::<u32>(), near in any::<bool>(),
        ) {
            let (network, length) = INTERNAL_V4[index];
            let size = 1_i64 << (32 - length);
            let border = i64::from(u32::from(network)) + if offset < 0 { 0 } else { size } + offset;
            let bits = if near { u32::try_from(border.clamp(0, i64::from(u32::MAX))).unwrap() } else { any_bits };
            let v4 = Ipv4Addr::from(bits);
            let expected = is_public(IpAddr::V4(v4));
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for v6 in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            ] {
                prop_assert_eq!(is_public(IpAddr::V6(v6)), expected, "{} in {}", v4, v6);
            }
        }

        #[test]
        fn outside_global_unicast_only_carriers_of_public_ipv4_are_public(bits in any::<u128>()) {
            let ip = Ipv6Addr::from(bits);
            let is_unicast = bits >> 125 == 1;
            let is_carrier = ip.to_ipv4_mapped().is_some() || ip.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
            prop_assert!(is_unicast || is_carrier || !is_public(IpAddr::V6(ip)));
            if ip.is_loopback() || ip.is_unspecified() || ip.is_multicast() || ip.is_unique_local() || ip.is_unicast_link_local() {
                prop_assert!(!is_public(IpAddr::V6(ip)));
            }
        }

        /// However an internal address is written, the address says so.
        #[test]
        fn spellings_of_an_internal_address_are_all_internal(index in 0..INTERNAL_V4.len(), inside in any::<u32>()) {
            let (network, length) = INTERNAL_V4[index];
            let host = inside.checked_shr(length).unwrap_or(0);
            let ip = Ipv4Addr::from(u32::from(network) | host);
            let [a, b, c, d] = ip.octets();
            let (number, rest) = (u32::from(ip), u32::from_be_bytes([0, b, c, d]));
            for spelling in [
                format!("{ip}"), format!("{number}"), format!("{number:#x}"), format!("0{number:o}"), format!("{a}.{rest}"),
                format!("{a:#x}.{b:#o}.{c}.{d}").replace("0o", "0"), format!("[::ffff:{ip}]"), format!("[64:ff9b::{ip}]"),
            ] {
                prop_assert_eq!(reached(&format!("http://{spelling}/x")), Reach::Internal, "{}", spelling);
            }
        }

        #[test]
        fn any_text_is_an_address_or_has_a_reason(text in "\\PC{0,60}|(https?|wss?)://[a-z0-9.:@\\[\\]{}/?#%-]{0,40}") {
            match parse(&text, &HTTP) {
                Ok(url) => prop_assert!(url.has_host() && url.username().is_empty()),
                Err(reason) => prop_assert!(!reason.is_empty()),
            }
        }
    }
}
