use cedar_policy::{
    ActionConstraint, EntityTypeName, EntityUid, Policy, PrincipalConstraint, ResourceConstraint,
};

/// The scope of a policy, read once at load, so that explaining a denial needs no evaluation.
#[derive(Clone, Debug)]
pub(crate) struct Scope {
    principal: PrincipalConstraint,
    action: ActionConstraint,
    resource: ResourceConstraint,
}

/// An entity of the request and the organization it belongs to (which is itself for an organization).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) uid: &'a EntityUid,
    pub(crate) organization: &'a EntityUid,
}

impl Scope {
    pub(crate) fn of(policy: &Policy) -> Self {
        Self {
            principal: policy.principal_constraint(),
            action: policy.action_constraint(),
            resource: policy.resource_constraint(),
        }
    }

    pub(crate) fn fits(
        &self,
        principal: Subject<'_>,
        action: &EntityUid,
        resource: Subject<'_>,
    ) -> bool {
        let principal_fits = match &self.principal {
            PrincipalConstraint::Any => true,
            PrincipalConstraint::Eq(uid) => principal.is(uid),
            PrincipalConstraint::In(uid) => principal.is_in(uid),
            PrincipalConstraint::Is(entity_type) => principal.is_a(entity_type),
            PrincipalConstraint::IsIn(entity_type, uid) => {
                principal.is_a(entity_type) && principal.is_in(uid)
            }
        };
        let action_fits = match &self.action {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(uid) => uid == action,
            // The schema has no action groups, so `in` is membership of the list.
            ActionConstraint::In(uids) => uids.contains(action),
        };
        let resource_fits = match &self.resource {
            ResourceConstraint::Any => true,
            ResourceConstraint::Eq(uid) => resource.is(uid),
            ResourceConstraint::In(uid) => resource.is_in(uid),
            ResourceConstraint::Is(entity_type) => resource.is_a(entity_type),
            ResourceConstraint::IsIn(entity_type, uid) => {
                resource.is_a(entity_type) && resource.is_in(uid)
            }
        };
        principal_fits && action_fits && resource_fits
    }
}

impl Subject<'_> {
    fn is(self, uid: &EntityUid) -> bool {
        self.uid == uid
    }

    fn is_in(self, uid: &EntityUid) -> bool {
        self.uid == uid || self.organization == uid
    }

    fn is_a(self, entity_type: &EntityTypeName) -> bool {
        self.uid.type_name() == entity_type
    }
}
