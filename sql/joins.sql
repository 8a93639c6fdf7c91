-- Joins: one stream with lookups in every place they may stand.
\getenv abs_srcdir PG_ABS_SRCDIR
\set include :abs_srcdir /sql/include/check.sql
\i :include

CREATE TABLE orders (id int, customer int, product int, amount numeric);
CREATE TABLE customers (id int PRIMARY KEY, name text, region int);
CREATE TABLE regions (id int PRIMARY KEY, name text);
CREATE TABLE products (id int PRIMARY KEY, name text, kind text);
CREATE TABLE rates (low int, high int, rate numeric);
INSERT INTO customers SELECT i, 'customer ' || i, i % 3 FROM generate_series(1, 20) i;
INSERT INTO regions VALUES (0, 'north'), (1, 'south');
INSERT INTO products SELECT i, 'product ' || i, CASE WHEN i % 2 = 0 THEN 'even' ELSE 'odd' END FROM generate_series(1, 5) i;
INSERT INTO rates VALUES (0, 50, 0.1), (50, 100, 0.2), (40, 60, 0.05);
CREATE FUNCTION more_orders(low int, high int) RETURNS void LANGUAGE sql AS
$$ INSERT INTO orders SELECT i, CASE WHEN i % 17 > 0 THEN i % 25 END, i % 7, i * 1.5 FROM generate_series(low, high) i $$;
SELECT more_orders(1, 100);

CREATE MATERIALIZED VIEW inner_join WITH (streamext.continuous) AS
	SELECT r.name AS region, count(*) AS n, sum(o.amount) AS amount
	FROM orders o JOIN customers c ON c.id = o.customer JOIN regions r ON r.id = c.region GROUP BY r.name;
CREATE MATERIALIZED VIEW comma_join WITH (streamext.continuous) AS
	SELECT c.name, count(*) AS n FROM orders o, customers c WHERE c.id = o.customer AND o.amount > 30 GROUP BY c.name;
CREATE MATERIALIZED VIEW left_join WITH (streamext.continuous) AS
	SELECT c.name, r.name AS region, count(*) AS n, count(c.id) AS known
	FROM orders o LEFT JOIN customers c ON c.id = o.customer LEFT JOIN regions r ON r.id = c.region GROUP BY c.name, r.name;
CREATE MATERIALIZED VIEW right_join WITH (streamext.continuous) AS
	SELECT c.name, count(*) AS n FROM customers c RIGHT JOIN orders o ON o.customer = c.id GROUP BY c.name;
CREATE MATERIALIZED VIEW left_of_inner WITH (streamext.continuous) AS
	SELECT o.id, x.name, x.region FROM orders o
	LEFT JOIN (SELECT c.id, c.name, r.name AS region FROM customers c JOIN regions r ON r.id = c.region) x ON x.id = o.customer;
CREATE MATERIALIZED VIEW range_join WITH (streamext.continuous) AS
	SELECT o.id, t.rate, o.amount * t.rate AS tax FROM orders o JOIN rates t ON o.id >= t.low AND o.id < t.high;
CREATE MATERIALIZED VIEW cross_join WITH (streamext.continuous) AS
	SELECT t.low, count(*) AS n FROM orders o CROSS JOIN rates t GROUP BY t.low;
CREATE MATERIALIZED VIEW using_join WITH (streamext.continuous) AS
	SELECT product, kind, sum(amount) AS s FROM orders JOIN (SELECT id AS product, kind FROM products) p USING (product) GROUP BY product, kind;
CREATE MATERIALIZED VIEW using_left WITH (streamext.continuous) AS
	SELECT product, kind, count(*) AS n FROM orders LEFT JOIN (SELECT id AS product, kind FROM products) p USING (product) GROUP BY product, kind
	HAVING count(*) > 1;
CREATE MATERIALIZED VIEW natural_join WITH (streamext.continuous) AS
	SELECT kind, count(*) AS n FROM orders NATURAL JOIN (SELECT id AS product, kind FROM products) p GROUP BY kind;
CREATE MATERIALIZED VIEW self_lookup WITH (streamext.continuous) AS
	SELECT a.name, b.name AS other, count(*) AS n FROM orders o JOIN customers a ON a.id = o.customer JOIN customers b ON b.id = o.product
	GROUP BY a.name, b.name;
CREATE MATERIALIZED VIEW sub_select WITH (streamext.continuous) AS
	SELECT kind, count(*) AS n FROM (SELECT o.amount, p.kind FROM orders o JOIN products p ON p.id = o.product WHERE o.amount > 10) x
	WHERE amount < 140 GROUP BY kind;
CREATE MATERIALIZED VIEW nested_sub_select WITH (streamext.continuous) AS
	SELECT bucket, sum(a) AS s FROM (SELECT a, a::int % 4 AS bucket FROM (SELECT amount * 2 AS a FROM orders) y WHERE a > 5) z GROUP BY bucket;
CREATE MATERIALIZED VIEW lookup_aggregated WITH (streamext.continuous) AS
	SELECT o.id, x.n FROM orders o JOIN (SELECT region, count(*) AS n, max(id) AS id FROM customers GROUP BY region) x ON x.id = o.customer;
CREATE MATERIALIZED VIEW cte WITH (streamext.continuous) AS
	WITH big AS (SELECT * FROM orders WHERE amount > 60), known AS MATERIALIZED (SELECT * FROM customers WHERE region = 1)
	SELECT known.name, count(*) AS n FROM big JOIN known ON known.id = big.customer GROUP BY known.name;
CREATE MATERIALIZED VIEW exists_in WITH (streamext.continuous) AS
	SELECT id FROM orders o WHERE EXISTS (SELECT FROM customers c WHERE c.id = o.customer AND c.region = 2) AND product IN (SELECT id FROM products WHERE kind = 'odd');
CREATE MATERIALIZED VIEW not_in WITH (streamext.continuous) AS
	SELECT product, count(*) AS n FROM orders o WHERE NOT EXISTS (SELECT FROM customers c WHERE c.id = o.customer) GROUP BY product;
CREATE MATERIALIZED VIEW scalar WITH (streamext.continuous) AS
	SELECT (SELECT name FROM products p WHERE p.id = o.product) AS name, count(*) AS n FROM orders o GROUP BY 1;
CREATE MATERIALIZED VIEW lateral_lookup WITH (streamext.continuous) AS
	SELECT o.id, t.rate FROM orders o, LATERAL (SELECT rate FROM rates WHERE o.id BETWEEN low AND high ORDER BY rate LIMIT 1) t;
CREATE MATERIALIZED VIEW left_lateral WITH (streamext.continuous) AS
	SELECT o.id, t.rate FROM orders o LEFT JOIN LATERAL (SELECT rate FROM rates WHERE o.id BETWEEN low AND high ORDER BY rate DESC LIMIT 1) t ON true;
CREATE MATERIALIZED VIEW values_lookup WITH (streamext.continuous) AS
	SELECT v.label, count(*) AS n FROM orders o JOIN (VALUES (1, 'one'), (2, 'two'), (NULL, 'none')) v(product, label) ON v.product = o.product GROUP BY v.label;
CREATE MATERIALIZED VIEW function_lookup WITH (streamext.continuous) AS
	SELECT o.id, g FROM orders o, generate_series(o.product, 3) g;
CREATE VIEW region_of AS SELECT c.id, r.name FROM customers c JOIN regions r ON r.id = c.region;
CREATE MATERIALIZED VIEW view_lookup WITH (streamext.continuous) AS
	SELECT v.name, count(*) AS n FROM orders o JOIN region_of v ON v.id = o.customer GROUP BY v.name;
CREATE MATERIALIZED VIEW plain_matview AS SELECT id, upper(name) AS name FROM products;
CREATE UNIQUE INDEX ON plain_matview (id);
CREATE MATERIALIZED VIEW matview_lookup WITH (streamext.continuous) AS
	SELECT m.name, count(*) AS n FROM orders o JOIN plain_matview m ON m.id = o.product GROUP BY m.name;

SELECT * FROM test.check_all();
SELECT more_orders(101, 150);
SELECT * FROM test.check_all() WHERE result <> 'ok';
INSERT INTO orders VALUES (1000, 1, 1, 7);
SELECT * FROM test.check_all() WHERE result <> 'ok';

-- a lookup is read as it is when the row is consumed: later changes of it do not reach back
SELECT streamext.wait_for();
SELECT n FROM inner_join WHERE region = 'north';
UPDATE regions SET name = 'far north' WHERE id = 0;
INSERT INTO orders VALUES (1001, 3, 1, 7);
SELECT streamext.wait_for();
SELECT region, n FROM inner_join WHERE region LIKE '%north' ORDER BY region;
DELETE FROM regions WHERE id = 0;
INSERT INTO orders VALUES (1002, 3, 1, 7);
SELECT streamext.wait_for();
SELECT region, n FROM inner_join WHERE region LIKE '%north' ORDER BY region;
-- the lookup's row and the stream's in one transaction
BEGIN;
INSERT INTO orders VALUES (1003, 3, 1, 7);
INSERT INTO regions VALUES (0, 'new north');
COMMIT;
SELECT streamext.wait_for();
SELECT region, n FROM inner_join WHERE region LIKE '%north' ORDER BY region;

-- several streams, each table a lookup of the other's view
CREATE TABLE payments (order_id int, paid numeric);
CREATE INDEX ON payments (order_id);
CREATE INDEX ON orders (id);
CREATE MATERIALIZED VIEW paid_late WITH (streamext.continuous, streamext.stream = 'payments') AS
	SELECT o.customer, sum(p.paid) AS paid FROM orders o JOIN payments p ON p.order_id = o.id GROUP BY o.customer;
CREATE MATERIALIZED VIEW paid_before WITH (streamext.continuous, streamext.stream = 'orders') AS
	SELECT o.customer, sum(p.paid) AS paid FROM orders o JOIN payments p ON p.order_id = o.id GROUP BY o.customer;
SELECT v.view, d.stream FROM streamext.views v JOIN streamext.view_def d USING (view) WHERE v.view::text LIKE 'paid%' ORDER BY v.view::text;
SELECT streamext.wait_for();
INSERT INTO payments SELECT i, 10 FROM generate_series(1, 30) i;
SELECT test.check('paid_late');
SELECT streamext.wait_for();
SELECT count(*) FROM paid_before;
INSERT INTO orders VALUES (1, 99, 1, 1);
SELECT streamext.wait_for();
TABLE paid_before;

-- a lookup that is locked makes its view wait, and no other
SELECT streamext.wait_for();
BEGIN;
LOCK TABLE products;
INSERT INTO orders VALUES (1004, 4, 2, 7);
SELECT more_orders(2000, 2010);
COMMIT;
SELECT test.check('sub_select'), test.check('comma_join');

-- dropping a lookup takes the views that use it, with CASCADE only
\set VERBOSITY terse
DROP TABLE rates;
\set VERBOSITY default
SET client_min_messages = warning;
DROP TABLE rates CASCADE;
RESET client_min_messages;
SELECT view FROM streamext.views WHERE view::text ~ 'range|cross|lateral' ORDER BY view::text;
INSERT INTO orders VALUES (1005, 5, 2, 7);
SELECT test.check('sub_select');
