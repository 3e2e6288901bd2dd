//! How much of an IP address is kept.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The network that `text` is an address of, by its first address: the first 24 bits of an IPv4 address, the first 48 of an IPv6
/// address, and zeros. None where `text` is no address.
///
/// An IPv4 address inside of an IPv6 address (mapped, RFC 4291; 6to4, RFC 3056) is cut to 24 bits too: the first 48 bits
/// of a 6to4 address hold all of it.
///
/// ```
/// use clicktide::privacy::network;
///
/// assert_eq!(network("203.0.113.77").unwrap().to_string(), "203.0.113.0");
/// assert_eq!(network("2001:db8:1:2:3:4:5:6").unwrap().to_string(), "2001:db8:1::");
/// assert_eq!(network("alice"), None);
/// ```
pub fn network(text: &str) -> Option<IpAddr> {
    match text.parse().ok()? {
        IpAddr::V4(address) => Some(network_v4(address).into()),
        IpAddr::V6(address) => Some(network_v6(address)),
    }
}

fn network_v4(address: Ipv4Addr) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, 0)
}

fn network_v6(address: Ipv6Addr) -> IpAddr {
    if let Some(mapped) = address.to_ipv4_mapped() {
        return network_v4(mapped).into();
    }
    let [first, second, third, ..] = address.segments();
    let third = if first == SIX_TO_FOUR { third & 0xff00 } else { third };
    Ipv6Addr::new(first, second, third, 0, 0, 0, 0, 0).into()
}

/// What 6to4 addresses begin with; the two segments that follow are an IPv4 address.
const SIX_TO_FOUR: u16 = 0x2002;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        fn check(text: &str, expected: Option<&str>) {
            assert_eq!(network(text).map(|network| network.to_string()).as_deref(), expected, "{text:?}");
        }
        check("198.51.100.255", Some("198.51.100.0"));
        check("0.0.0.0", Some("0.0.0.0"));
        check("255.255.255.255", Some("255.255.255.0"));
        check("2001:0db8:85a3:0000:0000:8a2e:0370:7334", Some("2001:db8:85a3::"));
        check("2001:db8::1", Some("2001:db8::"));
        check("::1", Some("::"));
        check("fe80::1", Some("fe80::"));
        // With an IPv4 address inside.
        check("::ffff:203.0.113.77", Some("203.0.113.0"));
        check("::FFFF:cb00:714d", Some("203.0.113.0"));
        check("2002:cb00:714d:1::1", Some("2002:cb00:7100::"));
        check("64:ff9b::203.0.113.77", Some("64:ff9b::"));
        check("::203.0.113.77", Some("::"));
        for none in [
            "",
            "-",
            "unknown",
            " 203.0.113.77",
            "203.0.113.77 ",
            "203.0.113.77:80",
            "[2001:db8::1]",
            "203.0.113.77, 198.51.100.1",
            "203.0.113",
            "203.0.113.256",
            "0313.0.0161.0115",
            "3405803853",
            "fe80::1%eth0",
            "2001:db8::/32",
            "alice@example.org",
        ] {
            check(none, None);
        }
    }
}
