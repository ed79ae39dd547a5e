//! Receipts of inclusion in COSE (RFC 9942, extension `.cose`): the proof of one leaf under a root that the log's key signs, for tools that read COSE.
//!
//! ```text
//! 18([ << {1: -8, 4: key id, 15: {1: issuer, 2: origin}, 395: 1} >>,
//!      {396: {-1: [ << [size, index, [hash, …]] >> ]}},
//!      nil,                                                      the root, which the reader computes
//!      signature over ["Signature1", protected, h'', root] ])
//! ```
//!
//! The signature holds the root and the origin fast, not size and index (`schemas/cose-receipt.md`). Its signed bytes begin with 0x84, as no UTF-8 text
//! does: none of them is ever a note, and no note one of them.

use ciborium::Value;
use ciborium::value::Integer;
use countersign_crypto::{Hash, Signature, SigningKey};

use crate::note::{Algorithm, KeyId, Vkey, check_name};
use crate::proof::{ProofError, inclusion_proof_len, inclusion_root};

/// The largest receipt taken, in bytes: 64 hashes of 34 bytes, the origin twice (a name has at most 1,024 bytes in a vkey), and room for the rest.
pub const COSE_RECEIPT_BYTES_MAX: usize = 8192;

/// How deep one item of CBOR is nested at most: tag, array, map of proofs, map of their kinds, list; the parser counts itself once more.
const DEPTH_MAX: usize = 8;

const SIGN1_TAG: u64 = 18;
const ALG: i64 = 1;
const ALG_EDDSA: i64 = -8;
const KID: i64 = 4;
const CWT_CLAIMS: i64 = 15;
const CWT_ISSUER: i64 = 1;
const CWT_SUBJECT: i64 = 2;
const VDS: i64 = 395;
const VDS_RFC9162_SHA256: i64 = 1;
const VDP: i64 = 396;
const VDP_INCLUSION: i64 = -1;

/// The receipt that a leaf is in a log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CoseReceipt {
    /// The log. Signed.
    pub origin: String,
    /// Selects the key that signed; no security property.
    pub key_id: KeyId,
    /// The index of the leaf. Not signed: the leaf has to say it too.
    pub index: u64,
    /// The size of the tree. Not signed.
    pub size: u64,
    /// The inclusion proof, from the leaf's sibling up.
    pub proof: Vec<Hash>,
    /// The log's signature over the header and the root.
    pub signature: Signature,
}

/// Why there is no receipt, or why bytes are none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum CoseReceiptError {
    /// The bytes are no CBOR, or nested too deep.
    #[error("the bytes are not one item of CBOR, at most {DEPTH_MAX} deep")]
    Cbor,
    /// CBOR, but not the one encoding of a receipt.
    #[error(
        "it is not encoded as a receipt of this version is: deterministic CBOR, with these header parameters and no others"
    )]
    Encoding,
    /// The tree has one leaf.
    #[error(
        "a tree of one entry has no receipt: RFC 9942 wants a path of at least one hash, and there is none before the second entry"
    )]
    EmptyPath,
    /// Not the members of a receipt.
    #[error("{part} is not what a receipt of inclusion holds there")]
    Form {
        /// Which part of it.
        part: &'static str,
    },
    /// The origin is no name of a log.
    #[error(
        "the origin is not the name of a log: an authority, `/`, and a path, without space or plus sign"
    )]
    Origin,
    /// It is of another log than the key.
    #[error("the receipt is of `{origin}`, not of `{key_name}`")]
    OtherOrigin {
        /// The origin in the receipt.
        origin: String,
        /// The name of the key.
        key_name: String,
    },
    /// The proof cannot be one of its index and size.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The leaf is not in the tree, or the key has not signed its root.
    #[error("the log's key has not signed the root to which leaf and path lead")]
    Signature,
    /// The receipt is larger than [`COSE_RECEIPT_BYTES_MAX`].
    #[error("the receipt has {bytes} bytes, more than {COSE_RECEIPT_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

impl CoseReceipt {
    /// Signs the receipt of the leaf with this hash. That the root to which the proof leads is one of the log's is for the caller to know.
    ///
    /// # Errors
    /// [`CoseReceiptError::Origin`], [`CoseReceiptError::EmptyPath`], [`CoseReceiptError::Proof`].
    pub fn sign(
        origin: &str,
        (leaf_hash, index): (&Hash, u64),
        size: u64,
        proof: Vec<Hash>,
        key: &SigningKey,
    ) -> Result<Self, CoseReceiptError> {
        check_origin(origin)?;
        let root = root_of(leaf_hash, index, size, &proof)?;
        let key_id = KeyId::of(origin, Algorithm::Ed25519, &key.public());
        let signature = key.sign(&signed_bytes(origin, key_id, &root));
        Ok(Self {
            origin: origin.to_owned(),
            key_id,
            index,
            size,
            proof,
            signature,
        })
    }

    /// The bytes of the file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let proof = self.proof.iter().map(|hash| bytes(hash)).collect();
        let proof = [self.size.into(), self.index.into(), Value::Array(proof)];
        let proofs = Value::Array(vec![Value::Bytes(to_cbor(&Value::Array(proof.into())))]);
        let unprotected = map([(VDP, map([(VDP_INCLUSION, proofs)]))]);
        let sign1 = Value::Array(vec![
            Value::Bytes(protected(&self.origin, self.key_id)),
            unprotected,
            Value::Null,
            bytes(&self.signature.to_bytes()),
        ]);
        to_cbor(&Value::Tag(SIGN1_TAG, Box::new(sign1)))
    }

    /// Reads a receipt. Who signed it, and over which root, is not looked at.
    ///
    /// # Errors
    /// [`CoseReceiptError`], all but [`CoseReceiptError::OtherOrigin`] and [`CoseReceiptError::Signature`].
    pub fn parse(file: &[u8]) -> Result<Self, CoseReceiptError> {
        if file.len() > COSE_RECEIPT_BYTES_MAX {
            let bytes = file.len();
            return Err(CoseReceiptError::TooLarge { bytes });
        }
        let receipt = read(&from_cbor(file)?)?;
        // One receipt has one encoding: whatever was passed over above (other members, longer forms of a number, an issuer) is found here.
        if receipt.encode() != file {
            return Err(CoseReceiptError::Encoding);
        }
        Ok(receipt)
    }

    /// Verifies that the leaf is in the log whose key is `log`: that this key signed the root to which the proof leads from it.
    ///
    /// # Errors
    /// [`CoseReceiptError::OtherOrigin`], [`CoseReceiptError::Proof`], [`CoseReceiptError::Signature`].
    pub fn verify(&self, leaf_hash: &Hash, log: &Vkey) -> Result<(), CoseReceiptError> {
        if log.name() != self.origin {
            return Err(CoseReceiptError::OtherOrigin {
                origin: self.origin.clone(),
                key_name: log.name().to_owned(),
            });
        }
        let root = root_of(leaf_hash, self.index, self.size, &self.proof)?;
        if log.algorithm() != Algorithm::Ed25519 {
            return Err(CoseReceiptError::Signature);
        }
        let signed = signed_bytes(&self.origin, self.key_id, &root);
        let verified = log.key().verify(&signed, &self.signature);
        verified.map_err(|_| CoseReceiptError::Signature)
    }
}

fn root_of(
    leaf_hash: &Hash,
    index: u64,
    size: u64,
    proof: &[Hash],
) -> Result<Hash, CoseReceiptError> {
    let root = inclusion_root(leaf_hash, index, size, proof)?;
    if proof.is_empty() {
        return Err(CoseReceiptError::EmptyPath);
    }
    Ok(root)
}

fn check_origin(origin: &str) -> Result<(), CoseReceiptError> {
    check_name(origin).map_err(|_| CoseReceiptError::Origin)?;
    match origin.split_once('/') {
        Some((authority, path)) if !authority.is_empty() && !path.is_empty() => Ok(()),
        _ => Err(CoseReceiptError::Origin),
    }
}

fn protected(origin: &str, key_id: KeyId) -> Vec<u8> {
    let issuer = origin.split_once('/').map_or(origin, |(issuer, _)| issuer);
    let claims = [
        (CWT_ISSUER, Value::Text(issuer.to_owned())),
        (CWT_SUBJECT, Value::Text(origin.to_owned())),
    ];
    to_cbor(&map([
        (ALG, Value::from(ALG_EDDSA)),
        (KID, bytes(&key_id.0)),
        (CWT_CLAIMS, map(claims)),
        (VDS, Value::from(VDS_RFC9162_SHA256)),
    ]))
}

/// The Sig_structure of RFC 9052 section 4.4.
fn signed_bytes(origin: &str, key_id: KeyId, root: &Hash) -> Vec<u8> {
    to_cbor(&Value::Array(vec![
        Value::Text("Signature1".to_owned()),
        Value::Bytes(protected(origin, key_id)),
        Value::Bytes(Vec::new()),
        bytes(root),
    ]))
}

fn read(item: &Value) -> Result<CoseReceipt, CoseReceiptError> {
    let form = |part| CoseReceiptError::Form { part };
    let sign1 = match item {
        Value::Tag(SIGN1_TAG, sign1) => sign1.as_array(),
        _ => None,
    };
    let sign1 = sign1.and_then(|members| <&[Value; 4]>::try_from(members.as_slice()).ok());
    let [header, unprotected, _, signature] = sign1.ok_or(form("the COSE_Sign1"))?;

    let header = header.as_bytes().ok_or(form("the protected header"))?;
    let header = from_cbor(header)?;
    let key_id = member(&header, KID).and_then(Value::as_bytes);
    let key_id = key_id.and_then(|id| <[u8; 4]>::try_from(id.as_slice()).ok());
    let key_id = KeyId(key_id.ok_or(form("the key id"))?);
    let claims = member(&header, CWT_CLAIMS).ok_or(form("the claims"))?;
    let origin = member(claims, CWT_SUBJECT).and_then(Value::as_text);
    let origin = origin.ok_or(form("the claim `sub`"))?.to_owned();
    check_origin(&origin)?;

    let proofs = member(unprotected, VDP).and_then(|proofs| member(proofs, VDP_INCLUSION));
    let proof = match proofs.and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::Bytes(proof)]) => from_cbor(proof)?,
        _ => return Err(form("the list of one inclusion proof")),
    };
    let proof = match proof.as_array().map(Vec::as_slice) {
        Some([size, index, Value::Array(path)]) => number(size).zip(number(index)).zip(Some(path)),
        _ => None,
    };
    let ((size, index), path) = proof.ok_or(form("the inclusion proof"))?;
    let expected = inclusion_proof_len(index, size).ok_or(ProofError::Index { index, size })?;
    if path.len() != expected {
        let actual = path.len();
        return Err(ProofError::Length { expected, actual }.into());
    }
    if path.is_empty() {
        return Err(CoseReceiptError::EmptyPath);
    }
    let hashes = path
        .iter()
        .map(|hash| hash.as_bytes()?.as_slice().try_into().ok());
    let proof: Option<Vec<Hash>> = hashes.collect();
    let signature = signature.as_bytes().map(Vec::as_slice);
    Ok(CoseReceipt {
        origin,
        key_id,
        index,
        size,
        proof: proof.ok_or(form("a hash of the path"))?,
        signature: signature
            .and_then(|bytes| Signature::try_from(bytes).ok())
            .ok_or(form("the signature"))?,
    })
}

/// The value under a number in a map; of several the first, the others being refused when the receipt is made again.
fn member(map: &Value, key: i64) -> Option<&Value> {
    let members = map.as_map()?;
    let found = members.iter().find(|(name, _)| *name == Value::from(key));
    found.map(|(_, value)| value)
}

fn number(value: &Value) -> Option<u64> {
    value
        .as_integer()
        .and_then(|number: Integer| number.try_into().ok())
}

fn bytes(bytes: &[u8]) -> Value {
    Value::Bytes(bytes.to_vec())
}

/// Keys as they are given: in the order of their encodings, which is what makes the encoding deterministic.
fn map<const N: usize>(members: [(i64, Value); N]) -> Value {
    Value::Map(members.map(|(key, value)| (Value::from(key), value)).into())
}

fn to_cbor(value: &Value) -> Vec<u8> {
    let mut written = Vec::new();
    // INVARIANT: memory takes what is written, and numbers, texts and bytes have an encoding.
    #[expect(clippy::expect_used, reason = "see the invariant")]
    ciborium::into_writer(value, &mut written).expect("writing to memory does not fail");
    written
}

/// One item, and nothing after it.
fn from_cbor(mut bytes: &[u8]) -> Result<Value, CoseReceiptError> {
    let value = ciborium::de::from_reader_with_recursion_limit(&mut bytes, DEPTH_MAX);
    value
        .ok()
        .filter(|_| bytes.is_empty())
        .ok_or(CoseReceiptError::Cbor)
}
