-- Partial states of aggregates: see src/query/aggregate_state.h

CREATE TYPE streamext.state;

CREATE FUNCTION streamext.state_in(cstring) RETURNS streamext.state
	AS 'MODULE_PATHNAME', 'sx_state_in' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION streamext.state_out(streamext.state) RETURNS cstring
	AS 'MODULE_PATHNAME', 'sx_state_out' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION streamext.state_recv(internal) RETURNS streamext.state
	AS 'MODULE_PATHNAME', 'sx_state_recv' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION streamext.state_send(streamext.state) RETURNS bytea
	AS 'MODULE_PATHNAME', 'sx_state_send' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

CREATE TYPE streamext.state (
	INPUT = streamext.state_in,
	OUTPUT = streamext.state_out,
	RECEIVE = streamext.state_recv,
	SEND = streamext.state_send,
	INTERNALLENGTH = VARIABLE,
	ALIGNMENT = double,
	STORAGE = extended
);

-- Immutable, as the final functions of the aggregates that a view may have: so that a
-- column of a view can be indexed.  Restricted: an aggregate's functions may be.
CREATE FUNCTION streamext.combine(aggregate regprocedure, a anyelement, b anyelement)
	RETURNS anyelement
	AS 'MODULE_PATHNAME', 'sx_combine' LANGUAGE C IMMUTABLE PARALLEL RESTRICTED;
CREATE FUNCTION streamext.combine(aggregate regprocedure, a anyelement, b anyelement,
								  VARIADIC argtypes "any")
	RETURNS anyelement
	AS 'MODULE_PATHNAME', 'sx_combine' LANGUAGE C IMMUTABLE PARALLEL RESTRICTED;
CREATE FUNCTION streamext.finalize(aggregate regprocedure, state "any", result anyelement)
	RETURNS anyelement
	AS 'MODULE_PATHNAME', 'sx_finalize' LANGUAGE C IMMUTABLE PARALLEL RESTRICTED;
CREATE FUNCTION streamext.finalize(aggregate regprocedure, state "any", result anyelement,
								   VARIADIC argtypes "any")
	RETURNS anyelement
	AS 'MODULE_PATHNAME', 'sx_finalize' LANGUAGE C IMMUTABLE PARALLEL RESTRICTED;

-- As an aggregate, with which views put the panes of overlapping windows together.
CREATE FUNCTION streamext.merge_step(merged anyelement, aggregate regprocedure, state anyelement)
	RETURNS anyelement
	AS 'MODULE_PATHNAME', 'sx_merge_step' LANGUAGE C IMMUTABLE PARALLEL RESTRICTED;
CREATE FUNCTION streamext.merge_step(merged anyelement, aggregate regprocedure, state anyelement,
									 VARIADIC argtypes "any")
	RETURNS anyelement
	AS 'MODULE_PATHNAME', 'sx_merge_step' LANGUAGE C IMMUTABLE PARALLEL RESTRICTED;
CREATE AGGREGATE streamext.merge(aggregate regprocedure, state anyelement)
(
	SFUNC = streamext.merge_step,
	STYPE = anyelement,
	PARALLEL = RESTRICTED
);
CREATE AGGREGATE streamext.merge(aggregate regprocedure, state anyelement, VARIADIC argtypes "any")
(
	SFUNC = streamext.merge_step,
	STYPE = anyelement,
	PARALLEL = RESTRICTED
);

REVOKE ALL ON FUNCTION
	streamext.state_in(cstring),
	streamext.state_out(streamext.state),
	streamext.state_recv(internal),
	streamext.state_send(streamext.state)
FROM PUBLIC;

COMMENT ON TYPE streamext.state IS
'partial state of an aggregate whose transition type is internal; only continuous views make values that can be used';
COMMENT ON FUNCTION streamext.state_in(cstring) IS
'reads the bytes of a dumped state, as hexadecimal; the value can be dumped again but not be used';
COMMENT ON FUNCTION streamext.state_out(streamext.state) IS
'the bytes of a state, as hexadecimal';
COMMENT ON FUNCTION streamext.state_recv(internal) IS
'reads the bytes of a dumped state; the value can be dumped again but not be used';
COMMENT ON FUNCTION streamext.state_send(streamext.state) IS
'the bytes of a state';
COMMENT ON FUNCTION streamext.combine(regprocedure, anyelement, anyelement) IS
'combines two partial states of an aggregate into one; an error if they are not states of this aggregate, or the caller may not execute it';
COMMENT ON FUNCTION streamext.combine(regprocedure, anyelement, anyelement, "any") IS
'combines two partial states of an aggregate that was called with arguments of these types (NULLs that only have a type)';
COMMENT ON FUNCTION streamext.merge_step(anyelement, regprocedure, anyelement) IS
'transition function of merge(): as combine(), and the state as it is where merged is null';
COMMENT ON FUNCTION streamext.merge_step(anyelement, regprocedure, anyelement, "any") IS
'transition function of merge(): as combine(), and the state as it is where merged is null';
COMMENT ON AGGREGATE streamext.merge(regprocedure, anyelement) IS
'combines any number of partial states of an aggregate into one; errors as combine()';
COMMENT ON AGGREGATE streamext.merge(regprocedure, anyelement, "any") IS
'combines any number of partial states of an aggregate that was called with arguments of these types (NULLs that only have a type) into one';
COMMENT ON FUNCTION streamext.finalize(regprocedure, "any", anyelement) IS
'the result of an aggregate whose partial state this is; result is a NULL of the result''s type; an error if it is no state of this aggregate, or the caller may not execute it';
COMMENT ON FUNCTION streamext.finalize(regprocedure, "any", anyelement, "any") IS
'the result of an aggregate that was called with arguments of these types (NULLs that only have a type), from its partial state; result is a NULL of the result''s type';
