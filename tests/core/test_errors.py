"""Every error is a `GfnmcError` and the builtin that describes it best."""

import pytest

from gfnmc.core import errors

BUILTIN = {
    errors.OptionError: ValueError,
    errors.ObjectError: ValueError,
    errors.EnergyError: ValueError,
    errors.EnvironmentContractError: ValueError,
    errors.CapabilityError: TypeError,
    errors.PolicyError: ValueError,
    errors.IrreducibilityError: ValueError,
    errors.TrainingError: ArithmeticError,
    errors.StorageError: OSError,
}


def test_none_is_forgotten() -> None:
    raised = {
        error for error in vars(errors).values() if isinstance(error, type) and error.__module__ == errors.__name__
    }
    with_details = {errors.NonFiniteEnergyError, errors.DamageError, errors.MismatchError}
    assert raised == {*BUILTIN, errors.GfnmcError, *with_details}


@pytest.mark.parametrize("error", BUILTIN, ids=lambda error: error.__name__)
def test_generic_handlers_work_too(error: type[errors.GfnmcError]) -> None:
    with pytest.raises(BUILTIN[error], match="what happened"):
        raise error("what happened")
    assert issubclass(error, errors.GfnmcError)
    assert error("x").chains is None


def test_an_energy_that_is_not_finite_says_where() -> None:
    error = errors.NonFiniteEnergyError("chain 3", row=3, value=float("inf"), step=7)
    assert isinstance(error, errors.EnergyError)
    assert (error.row, error.value, error.step, str(error)) == (3, float("inf"), 7, "chain 3")


def test_errors_of_runs_say_what() -> None:
    damage = errors.DamageError("a block is damaged", part="block 3")
    assert isinstance(damage, errors.StorageError) and (damage.part, str(damage)) == ("block 3", "a block is damaged")
    mismatch = errors.MismatchError("other versions", mismatches={"torch": ("1", "2")})
    assert isinstance(mismatch, ValueError) and mismatch.mismatches == {"torch": ("1", "2")}
