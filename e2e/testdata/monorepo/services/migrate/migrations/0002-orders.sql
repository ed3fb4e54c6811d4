create table orders (id integer primary key, product integer references products (id), count integer not null);
create index orders_product on orders (product);
