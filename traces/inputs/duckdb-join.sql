SET threads=1;
SELECT count(*), sum(sale.amount * customer.credit), max(customer.city)
FROM sale JOIN customer ON sale.customer = customer.id;
