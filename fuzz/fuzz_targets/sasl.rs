//! Any responses within any mechanism: an exchange never panics, its challenges fit, and
//! without the right password SCRAM lets nobody in.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use popcore::auth::{
    Account, MasterForm, NameRules, Proved, Refusal, ScramAnswer, UserName, Verifier,
};
use popcore::limits;
use popcore::sasl::{Bindings, Context, Exchange, Mechanism, Next};

static KEYS: LazyLock<[Verifier; 2]> = LazyLock::new(|| {
    [
        "{SCRAM-SHA-1}4096,QSXCR+Q6sek8bf92,6dlGYMOdZcOPutkcNY8U2g7vK9Y=,D+CSWLOshSulAsxiupA+qs2/fTE=",
        "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
    ]
    .map(|text| Verifier::parse(text.as_bytes()).expect("known"))
});

fuzz_target!(|data: &[u8]| {
    let Some((&setting, data)) = data.split_first() else {
        return;
    };
    let all = Mechanism::ALL;
    let mechanism = all[usize::from(setting & 7) % all.len()];
    let names = NameRules {
        lowercase: setting & 8 != 0,
        master: MasterForm::parse("{master}*{user}").filter(|_| setting & 16 != 0),
        ..NameRules::default()
    };
    let bindings = Bindings {
        exporter: None,
        end_point: Some(Box::new([7; 32])),
    };
    let context = Context {
        names: &names,
        bindings: Some(&bindings).filter(|_| setting & 32 != 0),
        offers_binding: setting & 64 != 0,
        certificate: Some("ann@example.net").filter(|_| setting & 128 != 0),
    };
    let mut exchange = Exchange::begin(mechanism);
    assert!(exchange.opening().len() <= limits::CHALLENGE);
    // Responses end at a line feed, which none of them needs.
    for response in data.split(|octet| *octet == b'\n') {
        exchange = match exchange.respond(response, &context) {
            Ok(Next::Challenge(next, challenge)) => {
                assert!(challenge.len() <= limits::CHALLENGE);
                next
            }
            Ok(Next::Verify(credentials)) => {
                let identity = credentials.identity;
                assert!(setting & 16 != 0 || identity.acts_for.is_none());
                return;
            }
            Ok(Next::Find(question, asking)) => {
                let keys = KEYS.iter().filter_map(Verifier::scram_keys);
                let mut keys = keys.filter(|keys| keys.hash() == question.hash);
                let answer = ScramAnswer {
                    keys: keys.next().expect("one of two").clone(),
                    verdict: Ok(Proved::from(Account {
                        user: UserName::new(b"ann").expect("a name"),
                        home: None,
                        mail: None,
                        limits: None,
                    })),
                    nonce: "nonce".to_owned(),
                };
                let (next, challenge) = asking.found(answer);
                assert!(challenge.len() <= limits::CHALLENGE);
                next
            }
            Ok(Next::Decided(verdict)) => {
                assert!(
                    matches!(verdict, Err(Refusal::Rejected)),
                    "a proof by chance"
                );
                return;
            }
            Err(fault) => {
                assert!(!fault.text().is_empty());
                return;
            }
        };
    }
});
