//! Names of message files as other programs write them: any bytes at all.

#![no_main]

use libfuzzer_sys::fuzz_target;
use popcore::maildrop::Name;

fuzz_target!(|bytes: &[u8]| {
    let Some(name) = Name::parse(bytes) else {
        return;
    };
    assert!(bytes.starts_with(name.unique()) && !name.unique().contains(&b':'));
    assert!(name.unique().starts_with(name.base()));
    assert!(bytes.ends_with(name.flags()));
    assert!(bytes[0] != b'.' && !bytes.contains(&b'/') && !bytes.contains(&0));
    // Identity, order and stated sizes do not depend on the flags.
    let plain = Name::parse(name.unique()).expect("a name without its flags is a name");
    assert_eq!(plain.unique(), name.unique());
    assert_eq!(plain.moment(), name.moment());
    assert_eq!(plain.stated_size(), name.stated_size());
    assert_eq!(plain.stated_octets(), name.stated_octets());
});
