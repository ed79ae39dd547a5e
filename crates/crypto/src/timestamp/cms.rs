//! The parts of RFC 5652 (CMS), RFC 3161 and RFC 5035 that a token consists of, read strictly as DER: what is signed is then exactly what was read.
//!
//! ```text
//! ContentInfo     SEQUENCE { id-signedData, [0] SignedData }
//! SignedData      SEQUENCE { version, SET OF digest algorithm, SEQUENCE { id-ct-TSTInfo, [0] OCTET STRING TSTInfo },
//!                            [0] certificates, [1] crls?, SET OF SignerInfo (one) }
//! SignerInfo      SEQUENCE { version, SEQUENCE { issuer, serial }, digest algorithm, [0] signed attributes, signature algorithm,
//!                            OCTET STRING signature, [1] unsigned attributes? }
//! TSTInfo         SEQUENCE { 1, policy, SEQUENCE { algorithm, OCTET STRING digest }, serial, GeneralizedTime, accuracy?, ordering?, nonce?, [0] tsa?, [1] extensions? }
//! ```

use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::asn1::{AnyRef, ObjectIdentifier};
use x509_cert::der::{
    DateTime, Decode as _, Encode as _, Reader as _, SliceReader, Tag, Tagged as _,
};

use super::TimestampError;
use crate::Hash;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const TST_INFO: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.1.4");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_CERTIFICATE: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.12");
const SIGNING_CERTIFICATE_V2: ObjectIdentifier =
    ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Certificates in one token: a chain has three or four.
const CERTIFICATES_MAX: usize = 16;

/// The digests that are taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum DigestKind {
    Sha256,
    Sha384,
    Sha512,
}

impl DigestKind {
    fn of(algorithm: ObjectIdentifier) -> Result<Self, TimestampError> {
        match algorithm.to_string().as_str() {
            "2.16.840.1.101.3.4.2.1" => Ok(Self::Sha256),
            "2.16.840.1.101.3.4.2.2" => Ok(Self::Sha384),
            "2.16.840.1.101.3.4.2.3" => Ok(Self::Sha512),
            _ => Err(TimestampError::Weak),
        }
    }

    fn digest(self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(bytes).to_vec(),
            Self::Sha384 => Sha384::digest(bytes).to_vec(),
            Self::Sha512 => Sha512::digest(bytes).to_vec(),
        }
    }
}

/// What the authority says.
pub(super) struct Info {
    pub(super) imprint: Hash,
    pub(super) time_us: u64,
    pub(super) accuracy_us: u64,
}

/// A token's parts, where they lie in its bytes.
pub(super) struct SignedData<'a> {
    info: &'a [u8],
    pub(super) certificates: Vec<&'a [u8]>,
    issuer: &'a [u8],
    serial: &'a [u8],
    digest: DigestKind,
    /// With the tag that they have in the token.
    attributes: &'a [u8],
    signature_algorithm: ObjectIdentifier,
    signature: &'a [u8],
}

impl<'a> SignedData<'a> {
    pub(super) fn parse(token: &'a [u8]) -> Result<Self, TimestampError> {
        let mut outer = Parts::of(token)?;
        let mut content_info = outer.inner(Tag::Sequence)?;
        outer.end()?;
        content_info.is(SIGNED_DATA)?;
        let mut explicit = content_info.inner(context(0))?;
        content_info.end()?;
        let mut data = explicit.inner(Tag::Sequence)?;
        explicit.end()?;
        // Version 3: the content is not of the type `data`.
        data.number(3)?;
        data.next(Tag::Set)?;
        let mut content = data.inner(Tag::Sequence)?;
        content.is(TST_INFO)?;
        let mut octets = content.inner(context(0))?;
        content.end()?;
        let info = octets.next(Tag::OctetString)?.value();
        octets.end()?;
        let mut certificates = Vec::new();
        let mut held = data
            .optional(context(0))?
            .ok_or(TimestampError::NoCertificate)?;
        while !held.is_at_end() {
            // What is no certificate, of the forms that nobody uses, is passed over.
            let tlv = held.raw()?;
            if tlv.first() == Some(&0x30) {
                certificates.push(tlv);
            }
            if certificates.len() > CERTIFICATES_MAX {
                return Err(TimestampError::Form);
            }
        }
        data.optional(context(1))?;
        let mut signers = data.inner(Tag::Set)?;
        data.end()?;
        let mut signer = signers.inner(Tag::Sequence)?;
        signers.end()?;
        // Version 1: the signer is named by issuer and serial number.
        signer.number(1)?;
        let mut id = signer.inner(Tag::Sequence)?;
        let issuer = id.raw()?;
        let serial = id.next(Tag::Integer)?.value();
        id.end()?;
        let digest = DigestKind::of(signer.algorithm()?)?;
        let attributes = signer.raw()?;
        let signature_algorithm = signer.algorithm()?;
        let signature = signer.next(Tag::OctetString)?.value();
        signer.optional(context(1))?;
        signer.end()?;
        Ok(Self {
            info,
            certificates,
            issuer,
            serial,
            digest,
            attributes,
            signature_algorithm,
            signature,
        })
    }

    /// The attributes are about the content, and that is a statement of time.
    pub(super) fn check_attributes(&self) -> Result<Info, TimestampError> {
        let content_type = self.attribute(CONTENT_TYPE)?;
        let named = content_type.and_then(|value| ObjectIdentifier::from_der(value).ok());
        let digest = self.attribute(MESSAGE_DIGEST)?;
        let digest = digest.and_then(|value| AnyRef::from_der(value).ok());
        let right = digest.is_some_and(|digest| {
            digest.tag() == Tag::OctetString && digest.value() == self.digest.digest(self.info)
        });
        if named != Some(TST_INFO) || !right {
            return Err(TimestampError::Attributes);
        }
        parse_info(self.info)
    }

    /// The place of the certificate that the signed attributes name by its digest, and the signer by issuer and serial number.
    pub(super) fn signer(&self) -> Result<usize, TimestampError> {
        let Some(value) = self.attribute(SIGNING_CERTIFICATE_V2)? else {
            // The first version names it by SHA-1.
            return Err(match self.attribute(SIGNING_CERTIFICATE)? {
                Some(_) => TimestampError::Weak,
                None => TimestampError::Attributes,
            });
        };
        let mut outer = Parts::of(value)?;
        let mut attribute = outer.inner(Tag::Sequence)?;
        outer.end()?;
        let mut ids = attribute.inner(Tag::Sequence)?;
        // The first names the signer's; others would narrow the chain, which is judged by trust.
        let mut id = ids.inner(Tag::Sequence)?;
        let kind = match id.optional(Tag::Sequence)? {
            Some(mut algorithm) => DigestKind::of(algorithm.oid()?)?,
            None => DigestKind::Sha256,
        };
        let digest = id.next(Tag::OctetString)?.value();
        let mut here = self.certificates.iter();
        let at = here
            .position(|certificate| kind.digest(certificate) == digest)
            .ok_or(TimestampError::NoCertificate)?;
        let certificate =
            Certificate::from_der(self.certificates[at]).map_err(|_| TimestampError::Form)?;
        let tbs = certificate.tbs_certificate();
        let issuer = tbs.issuer().to_der().map_err(|_| TimestampError::Form)?;
        if issuer != self.issuer || tbs.serial_number().as_bytes() != self.serial {
            return Err(TimestampError::Attributes);
        }
        Ok(at)
    }

    pub(super) fn check_signature(&self, certificate: &[u8]) -> Result<(), TimestampError> {
        use webpki::ring as algorithms;
        let certificate = CertificateDer::from(certificate);
        let signer = webpki::EndEntityCert::try_from(&certificate);
        let signer = signer.map_err(|_| TimestampError::Form)?;
        let oid = self.signature_algorithm.to_string();
        let kind = match oid.as_str() {
            // RSA and ECDSA with the digest in their name: it has to be that of the attributes.
            "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" => DigestKind::Sha256,
            "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => DigestKind::Sha384,
            "1.2.840.113549.1.1.13" => DigestKind::Sha512,
            _ if [RSA, ED25519].contains(&self.signature_algorithm) => self.digest,
            _ => return Err(TimestampError::Weak),
        };
        if kind != self.digest {
            return Err(TimestampError::Attributes);
        }
        let candidates = match (oid.as_str(), kind) {
            (oid, _) if oid == ED25519.to_string() => vec![algorithms::ED25519],
            ("1.2.840.10045.4.3.2", _) => {
                vec![algorithms::ECDSA_P256_SHA256, algorithms::ECDSA_P384_SHA256]
            }
            ("1.2.840.10045.4.3.3", _) => {
                vec![algorithms::ECDSA_P256_SHA384, algorithms::ECDSA_P384_SHA384]
            }
            (_, DigestKind::Sha256) => vec![algorithms::RSA_PKCS1_2048_8192_SHA256],
            (_, DigestKind::Sha384) => vec![algorithms::RSA_PKCS1_2048_8192_SHA384],
            (_, DigestKind::Sha512) => vec![algorithms::RSA_PKCS1_2048_8192_SHA512],
        };
        // What is signed is a SET OF; in the token its tag is [0].
        let mut message = self.attributes.to_vec();
        if let Some(tag) = message.first_mut() {
            *tag = 0x31;
        }
        let mut refused = TimestampError::Weak;
        for algorithm in candidates {
            match signer.verify_signature(algorithm, &message, self.signature) {
                Ok(()) => return Ok(()),
                Err(webpki::Error::InvalidSignatureForPublicKey) => {
                    refused = TimestampError::Signature;
                }
                // A key of another kind.
                Err(_) => {}
            }
        }
        Err(refused)
    }

    /// The one value of an attribute, if it is there. There twice, or with more values, it is none.
    fn attribute(&self, wanted: ObjectIdentifier) -> Result<Option<&'a [u8]>, TimestampError> {
        let mut outer = Parts::of(self.attributes)?;
        let mut attributes = outer.inner(context(0))?;
        let mut found = None;
        while !attributes.is_at_end() {
            let mut attribute = attributes.inner(Tag::Sequence)?;
            let oid = attribute.oid()?;
            let mut values = attribute.inner(Tag::Set)?;
            attribute.end()?;
            if oid != wanted {
                continue;
            }
            let value = values.raw()?;
            values.end()?;
            if found.replace(value).is_some() {
                return Err(TimestampError::Attributes);
            }
        }
        Ok(found)
    }
}

fn parse_info(bytes: &[u8]) -> Result<Info, TimestampError> {
    let mut outer = Parts::of(bytes)?;
    let mut info = outer.inner(Tag::Sequence)?;
    outer.end()?;
    info.number(1)?;
    info.next(Tag::ObjectIdentifier)?;
    let mut imprint = info.inner(Tag::Sequence)?;
    // Our imprints are SHA-256; another says nothing about them.
    if DigestKind::of(imprint.algorithm()?)? != DigestKind::Sha256 {
        return Err(TimestampError::Weak);
    }
    let digest = imprint.next(Tag::OctetString)?.value();
    imprint.end()?;
    info.next(Tag::Integer)?;
    let time_us = parse_time(info.next(Tag::GeneralizedTime)?.value())?;
    let accuracy_us = match info.optional(Tag::Sequence)? {
        Some(accuracy) => parse_accuracy(accuracy)?,
        None => 0,
    };
    for optional in [Tag::Boolean, Tag::Integer, context(0)] {
        info.skip(optional)?;
    }
    // No extension is known here, and one that is critical would change what is said.
    if let Some(mut extensions) = info.optional(context(1))? {
        while !extensions.is_at_end() {
            let mut extension = extensions.inner(Tag::Sequence)?;
            extension.oid()?;
            if extension.skip(Tag::Boolean)? {
                return Err(TimestampError::Form);
            }
        }
    }
    info.end()?;
    Ok(Info {
        imprint: digest.try_into().map_err(|_| TimestampError::Form)?,
        time_us,
        accuracy_us,
    })
}

/// `YYYYMMDDhhmmss[.f…]Z`: the fraction is what RFC 3161 adds to DER's own form. Rounded up to µs.
fn parse_time(bytes: &[u8]) -> Result<u64, TimestampError> {
    parse_time_of(bytes).ok_or(TimestampError::Form)
}

fn parse_time_of(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?.strip_suffix('Z')?;
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() != 14 || !digits(whole) {
        return None;
    }
    let field = |range: std::ops::Range<usize>| whole[range].parse::<u16>().ok();
    let small = |range| field(range).and_then(|value| u8::try_from(value).ok());
    let instant = DateTime::new(
        field(0..4)?,
        small(4..6)?,
        small(6..8)?,
        small(8..10)?,
        small(10..12)?,
        small(12..14)?,
    );
    let seconds = instant.ok()?.unix_duration().as_secs();
    let mut us = 0;
    if let Some(fraction) = fraction {
        let good = !fraction.is_empty() && digits(fraction) && !fraction.ends_with('0');
        if !good || fraction.len() > 30 {
            return None;
        }
        let (kept, rest) = fraction.split_at(fraction.len().min(6));
        us = format!("{kept:0<6}").parse::<u64>().ok()? + u64::from(!rest.is_empty());
    }
    seconds.checked_mul(1_000_000)?.checked_add(us)
}

fn parse_accuracy(mut accuracy: Parts<'_>) -> Result<u64, TimestampError> {
    let seconds = match accuracy.optional_any(Tag::Integer)? {
        Some(seconds) => unsigned(seconds.value())?,
        None => 0,
    };
    let mut us = seconds.checked_mul(1_000_000);
    for (tag, unit) in [(0, 1_000), (1, 1)] {
        if let Some(part) = accuracy.optional_any(primitive(tag))? {
            let part = unsigned(part.value())?;
            if !(1..=999).contains(&part) {
                return Err(TimestampError::Form);
            }
            us = us.and_then(|us| us.checked_add(part * unit));
        }
    }
    accuracy.end()?;
    us.ok_or(TimestampError::Form)
}

/// The content of an INTEGER that is not negative and has at most 32 bits.
pub(super) fn unsigned(content: &[u8]) -> Result<u64, TimestampError> {
    let form = TimestampError::Form;
    let positive = content.first().is_some_and(|first| *first < 0x80);
    let minimal = !(content.len() > 1 && content[0] == 0 && content[1] < 0x80);
    if !positive || !minimal || content.len() > 5 {
        return Err(form);
    }
    let value = content
        .iter()
        .fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
    u32::try_from(value).map(u64::from).map_err(|_| form)
}

/// A constructed tag of a context.
pub(super) fn context(number: u32) -> Tag {
    tag(number, true)
}

fn primitive(number: u32) -> Tag {
    tag(number, false)
}

fn tag(number: u32, constructed: bool) -> Tag {
    Tag::ContextSpecific {
        constructed,
        number: x509_cert::der::TagNumber(number),
    }
}

/// The elements of a constructed one, in their order.
pub(super) struct Parts<'a>(SliceReader<'a>);

impl<'a> Parts<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Result<Self, TimestampError> {
        SliceReader::new(bytes)
            .map(Self)
            .map_err(|_| TimestampError::Form)
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.0.is_finished()
    }

    pub(super) fn end(self) -> Result<(), TimestampError> {
        self.0.finish().map_err(|_| TimestampError::Form)
    }

    pub(super) fn next(&mut self, tag: Tag) -> Result<AnyRef<'a>, TimestampError> {
        match AnyRef::decode(&mut self.0) {
            Ok(element) if element.tag() == tag => Ok(element),
            _ => Err(TimestampError::Form),
        }
    }

    /// The next element with its head.
    pub(super) fn raw(&mut self) -> Result<&'a [u8], TimestampError> {
        self.0.tlv_bytes().map_err(|_| TimestampError::Form)
    }

    pub(super) fn inner(&mut self, tag: Tag) -> Result<Self, TimestampError> {
        Self::of(self.next(tag)?.value())
    }

    fn has(&self, tag: Tag) -> bool {
        !self.is_at_end() && Tag::peek(&self.0).is_ok_and(|next| next == tag)
    }

    fn optional_any(&mut self, tag: Tag) -> Result<Option<AnyRef<'a>>, TimestampError> {
        self.has(tag).then(|| self.next(tag)).transpose()
    }

    pub(super) fn optional(&mut self, tag: Tag) -> Result<Option<Self>, TimestampError> {
        self.has(tag).then(|| self.inner(tag)).transpose()
    }

    /// Steps over an element, where it is there; says whether.
    fn skip(&mut self, tag: Tag) -> Result<bool, TimestampError> {
        Ok(self.optional_any(tag)?.is_some())
    }

    fn oid(&mut self) -> Result<ObjectIdentifier, TimestampError> {
        let element = self.next(Tag::ObjectIdentifier)?;
        ObjectIdentifier::from_bytes(element.value()).map_err(|_| TimestampError::Form)
    }

    fn is(&mut self, wanted: ObjectIdentifier) -> Result<(), TimestampError> {
        match self.oid()? == wanted {
            true => Ok(()),
            false => Err(TimestampError::Form),
        }
    }

    /// An algorithm identifier; its parameters are none, for those that are taken.
    fn algorithm(&mut self) -> Result<ObjectIdentifier, TimestampError> {
        let mut identifier = self.inner(Tag::Sequence)?;
        let oid = identifier.oid()?;
        identifier.skip(Tag::Null)?;
        match identifier.is_at_end() {
            true => Ok(oid),
            false => Err(TimestampError::Weak),
        }
    }

    fn number(&mut self, wanted: u64) -> Result<(), TimestampError> {
        let found = unsigned(self.next(Tag::Integer)?.value())?;
        match found == wanted {
            true => Ok(()),
            false => Err(TimestampError::Form),
        }
    }
}
