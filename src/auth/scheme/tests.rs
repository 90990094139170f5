//! Vectors made by crypt(3) of glibc's libxcrypt, OpenSSL's `passwd`, Python's
//! hashlib, the reference implementation of Argon2 (argon2-cffi) and `doveadm pw` of
//! Dovecot 2.3.

use proptest::prelude::*;

use super::*;

const PASSWORD: &str = "correct horse battery staple";

fn verifies(stored: &str, password: &str) -> bool {
    let verifier = Verifier::parse(stored.as_bytes()).unwrap_or_else(|e| panic!("{stored}: {e}"));
    verifier.verify(&Password::new(password.as_bytes()).expect("short"))
}

fn assert_only(stored: &str, password: &str) {
    assert!(verifies(stored, password), "{stored} {password:?}");
    for wrong in [
        "",
        "correct horse battery stapl",
        "Correct horse battery staple",
        "x",
    ] {
        if wrong != password {
            assert!(!verifies(stored, wrong), "{stored} {wrong:?}");
        }
    }
    assert!(
        !verifies(stored, &format!("{password}x")) || password.len() >= 72,
        "{stored}"
    );
}

/// Weaker than what `popcore passwd` makes; what SCRAM needs is not.
#[test]
fn what_is_weak_is_known() {
    let verifier = |text: &str| Verifier::parse(text.as_bytes()).expect("a scheme");
    for weak in [
        "{PLAIN}pw",
        "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
        "$5$saltstring$hixOXgchwauyzVtlSM/e7UnQx0qiTk74JE/YU53IbE0",
        "{BLF-CRYPT}$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW",
        "{ARGON2ID}$argon2id$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$gAwJW5vx5itn2V9KHlEUjyUCrpDYgKyQf0gMaHGx1h4",
        "{ARGON2I}$argon2i$v=19$m=65536,t=3,p=1$MDEyMzQ1Njc4OWFiY2RlZg$gAwJW5vx5itn2V9KHlEUjyUCrpDYgKyQf0gMaHGx1h4",
    ] {
        assert!(verifier(weak).is_weak(), "{weak}");
    }
    let password = Password::new(b"pw").expect("short");
    for made in [
        NewScheme::Argon2id,
        NewScheme::ScramSha256,
        NewScheme::ScramSha1,
    ] {
        assert!(!verifier(&made.store(&password)).is_weak(), "{made:?}");
    }
    assert!(verifier("{PLAIN}pw").is_clear());
    assert!(!verifier("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=").is_clear());
}

#[test]
fn sha_crypt_vectors() {
    let hundred = "x".repeat(100);
    let cases = [
        (
            "$6$saltstring$qvPJY4PeugKzKQqyIJ0gRdJnpS0uaaiZ.X1SaheFedsK/yZPwlluTLS90fJPM41sD5JxCHKgGr1..qt5HqEY8.",
            PASSWORD,
        ),
        (
            "$6$saltstring$6PSVl254uv0cWCoUS0qzSX5NenRA/YFCwPzGA9ONu.MmmxqXTWHerEzD8WyuBl3ukfIZZU9uxLD6Bn6p7S3rG.",
            "pässwörd",
        ),
        (
            "$6$saltstring$kyGrqt6gmjAdtFLPrflEFifSYLCWWq1pyx95SvqinLDy2UHmj0sTF0MSLMwxPFZc3tu5kQckI8fks0zOPda3n1",
            "",
        ),
        (
            "$6$saltstring$MTEOJx1zhJ5109YzqYzCaFk55JWZM1QJeKTBu63saMo0UwwWLpCB56lyhLVgvClgMHXn3tBaHXoSTCac4QqUv0",
            &hundred,
        ),
        (
            "$6$rounds=1000$roundstoolow$97pulnKMJWiiejVWjqQKHh5LTN4JaZrvh9C9l.kefC7oqIe3ufOTECZM1.yE4b0dARi0E/Kmreagr/To7rntE1",
            PASSWORD,
        ),
        (
            "$6$rounds=12345$abcdefghijklmnop$OzkyukvE77IUS.o8u0LZj3JFarPmGhDmiI22Qwo6aShgciQl27qc324XnXF7pidjkaD07ZUwieCBFfyoMJ3PJ1",
            PASSWORD,
        ),
        (
            "$6$$.5S2N2yDfTC5WfZdQodycKNPME7cgos0yUKlyzH60S5NZ2OAK2pFE9vo8gnsaPEmNHhRqSHDKycbuQ8oP0E650",
            PASSWORD,
        ),
        (
            "$6$ab$onWIFlNZQuuCqIEw1eHw.4xq7h1D02Cn6yjqrtxWdt8u4.oSQA4Cv7daOvlLjCa6eJ3nefKWHPnU6A5ShljOF/",
            PASSWORD,
        ),
        (
            "$5$saltstring$hixOXgchwauyzVtlSM/e7UnQx0qiTk74JE/YU53IbE0",
            PASSWORD,
        ),
        (
            "$5$saltstring$bWOoCRTKNT.aiY/gJjvk1HjBYuRpcYQmcc5hqf6H4T4",
            "pässwörd",
        ),
        (
            "$5$saltstring$Oa4FAe3j12NEBjTMwR61FXUth0v2z1HlRVgHK3bteq/",
            &hundred,
        ),
        (
            "$5$rounds=1400$anotherlongsalts$sw4nxJsiJXpEwiiUuqI9Tpwduvoz/aXd/SVh9LlV1c6",
            PASSWORD,
        ),
        (
            "$5$ab$mFEHaGyrUQrpuKPQLJBfffcuwc6pf.GkwYfg9lSu6V2",
            PASSWORD,
        ),
    ];
    for (text, password) in cases {
        assert_only(text, password);
    }
    let (text, password) = cases[0];
    for scheme in ["{SHA512-CRYPT}", "{CRYPT}", "{sha512-Crypt}"] {
        assert_only(&format!("{scheme}{text}"), password);
    }
    let (text, password) = cases[8];
    assert_only(&format!("{{SHA256-CRYPT}}{text}"), password);
}

#[test]
fn bcrypt_vectors() {
    for id in ["2a", "2b", "2y"] {
        for scheme in ["", "{CRYPT}", "{BLF-CRYPT}"] {
            let salted = format!("{scheme}${id}$04$abcdefghijklmnopqrstuu");
            assert_only(
                &format!("{salted}7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG"),
                PASSWORD,
            );
            assert_only(
                &format!("{salted}yx2n0Zzopyr9QuYTMCfOJJOj526QVoC"),
                "pässwörd",
            );
            assert_only(&format!("{salted}byCG3zY1GIXMyxfivm.ClDiInHzxjiq"), "");
            let hundred = "x".repeat(100);
            assert_only(
                &format!("{salted}bzadhGtS2zEF.gu0yd0opP6cVzb.e0i"),
                &hundred,
            );
        }
    }
}

#[test]
fn argon2_vectors() {
    let cases = [
        (
            "$argon2id$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$gAwJW5vx5itn2V9KHlEUjyUCrpDYgKyQf0gMaHGx1h4",
            PASSWORD,
        ),
        (
            "$argon2id$v=19$m=256,t=3,p=2$MDEyMzQ1Njc$AoDkRI37PXmj6P5ylYtG45XzWOVI3TyZ",
            PASSWORD,
        ),
        (
            "$argon2id$v=16$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$qE2NAJv+l00hufrIZfQRUx+K4huY0JAVlc2AoCy4oc4",
            PASSWORD,
        ),
        (
            "$argon2id$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$qE2NAJv+l00hufrIZfQRUx+K4huY0JAVlc2AoCy4oc4",
            PASSWORD,
        ),
        (
            "$argon2i$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$tTEGqyzWgE8XeFIcVmGNBy2ro7tX1aVB4Lm/p52JsIo",
            PASSWORD,
        ),
        (
            "$argon2i$v=16$m=256,t=3,p=2$MDEyMzQ1Njc$z3IAIB8zOqKx2EAzdPtzDcKs4HTT1FEa",
            PASSWORD,
        ),
    ];
    for (text, password) in cases {
        for scheme in ["", "{ARGON2ID}", "{argon2i}"] {
            assert_only(&format!("{scheme}{text}"), password);
        }
    }
    let usual = "$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$p9c4ucO/R2KPDN+PkWHKJ8BFh72sWSAvoB5iH9pNqCY";
    assert!(verifies(usual, ""));
}

#[test]
fn md5_crypt_vectors() {
    let hundred = "x".repeat(100);
    let cases = [
        ("$1$saltsalt$BsXyQbZiQujHkdhwPwdol.", PASSWORD),
        ("$1$saltsalt$VReRfkQ8Hs1aayf/oxMkG/", "pässwörd"),
        ("$1$saltsalt$5Jhcit4zN9UlGiA0txPkO0", ""),
        ("$1$saltsalt$AomvFEJYtItwDZI8JetzY0", &hundred),
        ("$1$ab$BGweqrca.3UvnWSg8yFZd1", PASSWORD),
        ("$1$ab$rn6aQS/o7141mj179E/zA.", ""),
        ("{MD5-CRYPT}$1$I6MLikt7$CFbuJ/RfIdWpXCNX079B2/", PASSWORD),
        ("{CRYPT}$1$m94zW0qQ$AqAYOG0LE4Eiipu.wKdFb0", PASSWORD),
    ];
    for (text, password) in cases {
        assert_only(text, password);
    }
}

#[test]
fn yescrypt_vectors() {
    let hundred = "x".repeat(100);
    let cases = [
        (
            "$y$j75$LdJMENpBABJJ3hIHjB1Bi.$qYexDEDfF3m8o.Wvs2FJ6Fnm2ifFSy7DjwT1tvliZsD",
            PASSWORD,
        ),
        (
            "$y$j75$LdJMENpBABJJ3hIHjB1Bi.$EHYl17XiOUsB2hAyzlhQ1ZlRQvpCfbLyHznEZY0U5a1",
            "pässwörd",
        ),
        (
            "{CRYPT}$y$j75$LdJMENpBABJJ3hIHjB1Bi.$P84q6fp0SQqmQK3.3KeX4Rfqhn5lfdkGCcheex0V8CC",
            &hundred,
        ),
        (
            "$y$j75$LdJMENpBABJJ3hIHjB1Bi.$tUlUF19mIl6XpRTpX7LBp5ABKS8KSmDfP1gXFrZ6Sy8",
            "",
        ),
    ];
    for (text, password) in cases {
        assert_only(text, password);
    }
    let usual = "$y$j9T$abcdefghijklmnop$PVOHjxO.A4LmtReq6NnH/KSkMoVk.KXqLgud8GhZ917";
    assert!(verifies(usual, PASSWORD));
    assert!(!verifies(usual, "x"));
}

#[test]
fn pbkdf2_and_scram_vectors() {
    let cases = [
        "{PBKDF2}$1$wtY8EqSFQmrnOTzk$5000$945f436252ced3a9bc5e977900cf5e9147d833f3",
        "{SCRAM-SHA-1}4096,ozhjO8YMLRnyU6Os0FMEhg==,/ujRyAqtfnkf8zaz/mcHqdh2AAs=,oiJMXsPe1M1jv0VHrOJ0iYdaSPI=",
        "{SCRAM-SHA-256}4096,t62WJIG3yzpROt1ZTOePGQ==,Jo55EFNeQCbonDyn7KBbOaKOU9Lr0MBLazZsFPNrkko=,Wh/aHAPAXj/F6ua4jWbWgUymNutqIBv3tBvNMLGG4iU=",
    ];
    for text in cases {
        assert_only(text, PASSWORD);
    }
}

#[test]
fn digest_vectors() {
    let cases = [
        "{SHA}q/eq1kOINtvlJqojGr3i0O73TUI=",
        "{SHA1}abf7aad6438836dbe526aa231abde2d0eef74d42",
        "{SSHA}ORKnVXjZu9dGD51qCouXYoBDPAU4Ynl0ZXNhbA==",
        "{SHA256}xLvLH77JnWW/WdhcjLYu4tuWPw/hBvSD2a+nO9Tjmoo=",
        "{SHA256}c4bbcb1fbec99d65bf59d85c8cb62ee2db963f0fe106f483d9afa73bd4e39a8a",
        "{SHA256.HEX}C4BBCB1FBEC99D65BF59D85C8CB62EE2DB963F0FE106F483D9AFA73BD4E39A8A",
        "{SHA256.b64}xLvLH77JnWW/WdhcjLYu4tuWPw/hBvSD2a+nO9Tjmoo",
        "{SSHA256}1SzZWYaqJBhPNCz/fyu2xuxOTeQxhSJUzBM+AaDD0044Ynl0ZXNhbA==",
        "{SSHA256.hex}d52cd95986aa24184f342cff7f2bb6c6ec4e4de431852254cc133e01a0c3d34e386279746573616c",
        "{SHA512}vl73Z52Iq5qQRfYmflX15XhLS4zXZLXNhVpSRPkcYmlTzUbEPXZohz/W7707IhJJMVWAAxljRyoHh4H+BG5irg==",
        "{SSHA512}EAO9oLVliMpq1D9BlS0VdAY/l7cquVS5T9dMadD0PyBHTy6D4+NU3CH5Or13qvkjwwqLZDDvPC3EbL2oE3RvsDhieXRlc2Fs",
    ];
    for text in cases {
        assert_only(text, PASSWORD);
    }
}

#[test]
fn plain_text_and_its_encodings() {
    assert_only("{PLAIN}correct horse battery staple", PASSWORD);
    assert_only("{CLEARTEXT}pässwörd", "pässwörd");
    assert_only(
        "{plain.b64}Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ==",
        PASSWORD,
    );
    assert_only(
        "{PLAIN.BASE64}Y29ycmVjdCBob3JzZSBiYXR0ZXJ5IHN0YXBsZQ",
        PASSWORD,
    );
    let hex = "636f727265637420686f727365206261747465727920737461706c65";
    assert_only(&format!("{{PLAIN.HEX}}{hex}"), PASSWORD);
}

#[test]
fn a_user_without_a_password_is_no_fault() {
    for text in [
        "",
        "!",
        "*",
        "!!",
        "!$6$ab$x",
        "{PLAIN}",
        "{CRYPT}*",
        "{ARGON2ID}",
        "{SHA}",
    ] {
        let error = Verifier::parse(text.as_bytes()).err();
        assert_eq!(error, Some(SchemeError::None), "{text:?}");
    }
}

#[test]
fn what_is_not_known_is_named_and_nothing_else_is() {
    let cases = [
        ("{NOSUCH}secret", "NOSUCH"),
        ("{SCRAM-SHA-512}secret", "SCRAM-SHA-512"),
        ("{PLAIN.rot13}secret", "PLAIN.ROT13"),
        ("{CRYPT}$7$CU..../....secret", "CRYPT with $7$"),
        ("$gy$secret$secret", "CRYPT with $gy$"),
        (
            "secret",
            "CRYPT without a $id$ (DES, or a password in clear)",
        ),
        (
            "$secret",
            "CRYPT without a $id$ (DES, or a password in clear)",
        ),
    ];
    for (text, name) in cases {
        let error = Verifier::parse(text.as_bytes()).expect_err("not known");
        assert_eq!(error, SchemeError::Unknown(name.into()), "{text}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}

#[test]
fn malformed_and_too_costly_text_is_refused() {
    let malformed = [
        "{PLAIN",
        "{PLAIN.hex}abc",
        "{PLAIN.hex}zz",
        "{PLAIN.b64}?",
        "{SHA256}AAAA",
        "{SSHA256}xLvLH77JnWW/WdhcjLYu4tuWPw/hBvSD2a+nO9Tjmoo=",
        "$6$salt",
        "$6$salt$short",
        "$6$rounds=999$a$b",
        "$6$rounds=x$a$b",
        "$5$a$b$c",
        "$2b$04$short",
        "$2b$03$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG",
        "{ARGON2ID}$6$a$b",
        "$1$salt",
        "$1$salt$short",
        "$y$j9T$secret",
        "$y$j9T$ab$?",
        "$y$?$abcdefgh$IniZeZUfydRKqXqXIvtJrKOlhunUbAHvs/2rxdw.d81",
        "{PBKDF2}$1$salt$5000",
        "{PBKDF2}$1$salt$0$945f436252ced3a9bc5e977900cf5e9147d833f3",
        "{PBKDF2}$1$salt$5000$945f",
        "{SCRAM-SHA-256}4096,AAAA,AAAA,AAAA",
        "{SCRAM-SHA-256}4096,AAAA",
        "{SCRAM-SHA-1}0,ozhjO8YMLRnyU6Os0FMEhg==,/ujRyAqtfnkf8zaz/mcHqdh2AAs=,oiJMXsPe1M1jv0VHrOJ0iYdaSPI=",
        "{SCRAM-SHA-256}4096,ozhjO8YMLRnyU6Os0FMEhg==,/ujRyAqtfnkf8zaz/mcHqdh2AAs=,oiJMXsPe1M1jv0VHrOJ0iYdaSPI=",
        "$argon2id$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg",
        "$argon2d$v=19$m=64,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$gAwJW5vx5itn2V9KHlEUjyUCrpDYgKyQf0gMaHGx1h4",
    ];
    for text in malformed {
        let error = Verifier::parse(text.as_bytes()).expect_err(text);
        assert!(
            matches!(error, SchemeError::Malformed(_)),
            "{text}: {error:?}"
        );
    }
    let costly = [
        "$6$rounds=999999999$a$b",
        "$y$jL/..$abcdefgh$IniZeZUfydRKqXqXIvtJrKOlhunUbAHvs/2rxdw.d81",
        "{PBKDF2}$1$salt$99999999$945f436252ced3a9bc5e977900cf5e9147d833f3",
        "{SCRAM-SHA-1}99999999,ozhjO8YMLRnyU6Os0FMEhg==,/ujRyAqtfnkf8zaz/mcHqdh2AAs=,oiJMXsPe1M1jv0VHrOJ0iYdaSPI=",
        "$2b$31$abcdefghijklmnopqrstuu7EJV7kdjBBQxyb0HjTh9KS7.Lah/6CG",
        "$argon2id$v=19$m=4194304,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$gAwJW5vx5itn2V9KHlEUjyUCrpDYgKyQf0gMaHGx1h4",
        "$argon2id$v=19$m=64,t=2000,p=1$MDEyMzQ1Njc4OWFiY2RlZg$gAwJW5vx5itn2V9KHlEUjyUCrpDYgKyQf0gMaHGx1h4",
    ];
    for text in costly {
        let error = Verifier::parse(text.as_bytes()).expect_err(text);
        assert!(
            matches!(error, SchemeError::TooCostly(_)),
            "{text}: {error:?}"
        );
    }
}

#[test]
fn debug_tells_the_scheme_alone() {
    let verifier = Verifier::parse(b"{PLAIN}secret").expect("known");
    assert_eq!(format!("{verifier:?}"), "Verifier(PLAIN)");
}

#[test]
fn the_stand_in_matches_nobody() {
    let password = Password::new(PASSWORD.as_bytes()).expect("short");
    assert!(!Verifier::stand_in().verify(&password));
}

proptest! {
    #[test]
    fn any_octets_parse_or_are_refused(
        scheme in "\\{?[A-Za-z0-9.-]{0,12}\\}?(\\$[a-z0-9]{1,8}\\$)?",
        data in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let text = [scheme.as_bytes(), &data].concat();
        if let Err(error) = Verifier::parse(&text) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn plain_matches_itself_alone(
        stored in proptest::collection::vec(any::<u8>(), 1..80),
        given in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let verifier = Verifier::parse(&[b"{PLAIN}", &stored[..]].concat()).expect("plain");
        prop_assert!(verifier.verify(&Password::new(&stored).expect("short")));
        let other = verifier.verify(&Password::new(&given).expect("short"));
        prop_assert_eq!(other, stored == given);
    }
}
